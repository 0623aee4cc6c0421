package ingress_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/ingress"
)

// A visitor who has sent all has not gone away: the answer comes, however long the
// service thinks (golang.org/issue/18527, traefik#2771).
func TestAnEndBehindTheRequestIsNoAbort(t *testing.T) {
	thought := make(chan struct{})
	service := &raw{after: func(c *net.TCPConn, b *bufio.Reader) {
		// The request is still wanted a good while after its end has come.
		_ = c.SetReadDeadline(time.Now().Add(3 * 250 * time.Millisecond))
		if _, err := b.ReadByte(); !isTimeout(err) {
			t.Errorf("the service lost its visitor: %v", err)
		}
		close(thought)
		_, _ = io.WriteString(c, ok)
	}}
	w := newWorld(t, service.serve)
	answer := w.exchange("GET / HTTP/1.1\r\nHost: app.example.org\r\n\r\n")
	<-thought
	mustContain(t, answer, "200 OK", "\r\n\r\nok")
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// A visitor who went away is gone for the service too, before and behind the end of
// the request.
func TestAnAbortReachesTheService(t *testing.T) {
	for name, half := range map[string]bool{"while it waits": false, "behind the end of the request": true} {
		t.Run(name, func(t *testing.T) {
			asked, told := make(chan struct{}), make(chan error, 1)
			service := &raw{after: func(c *net.TCPConn, b *bufio.Reader) {
				close(asked)
				_ = c.SetReadDeadline(time.Now().Add(limit))
				_, err := b.ReadByte()
				told <- err
			}}
			w := newWorld(t, service.serve)
			visitor := w.dial()
			_, _ = io.WriteString(visitor, "GET / HTTP/1.1\r\nHost: app.example.org\r\n\r\n")
			if half {
				_ = visitor.CloseWrite()
			}
			<-asked
			_ = visitor.SetLinger(0)
			_ = visitor.Close()
			if err := <-told; err == nil || isTimeout(err) {
				t.Errorf("the service heard %v, want the end of the connection", err)
			}
		})
	}
}

// Interim answers come as they are, each once, and a body that nobody asked for is
// not sent (traefik#9926).
func TestExpectContinue(t *testing.T) {
	ask := request("POST", "/", "Content-Length: 3", "Expect: 100-continue")
	for name, c := range map[string]struct {
		answer string
		body   bool
		want   []string
	}{
		"refused":  {"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", false, []string{"401"}},
		"accepted": {"HTTP/1.1 100 Continue\r\n\r\n", true, []string{"100", "200"}},
		"hints":    {"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n", true, []string{"103", "100", "200"}},
	} {
		t.Run(name, func(t *testing.T) {
			got := make(chan string, 1)
			service := &raw{answer: c.answer, after: func(conn *net.TCPConn, b *bufio.Reader) {
				if !c.body {
					rest, _ := io.ReadAll(b)
					got <- string(rest)
					return
				}
				body := make([]byte, 3)
				_, _ = io.ReadFull(b, body)
				got <- string(body)
				_, _ = io.WriteString(conn, ok)
			}}
			w := newWorld(t, service.serve)
			visitor := w.dial()
			_, _ = io.WriteString(visitor, ask)
			answers := bufio.NewReader(visitor)
			var statuses []string
			for {
				head, err := readHead(answers)
				if err != nil {
					t.Fatalf("after %v: %v", statuses, err)
				}
				status := strings.SplitN(head, " ", 3)[1]
				statuses = append(statuses, status)
				if status == "103" && line(head, "Link") == "" {
					t.Errorf("the hint came without its link: %q", head)
				}
				if status == "100" {
					_, _ = io.WriteString(visitor, "abc")
				}
				if status[0] != '1' {
					break
				}
			}
			if fmt.Sprint(statuses) != fmt.Sprint(c.want) {
				t.Errorf("the visitor got %v, want %v", statuses, c.want)
			}
			_ = visitor.Close()
			if body, want := <-got, map[bool]string{true: "abc"}[c.body]; body != want {
				t.Errorf("the service read %q, want %q", body, want)
			}
		})
	}
}

// What was cut short at the service is cut short at the visitor, behind the status
// and what there was (caddy#7845).
func TestATruncatedAnswerIsNoEnd(t *testing.T) {
	for name, c := range map[string]struct{ answer, got string }{
		"with a length, nothing of it": {"HTTP/1.1 200 OK\r\nContent-Length: 123\r\n\r\n", "200 OK"},
		"with a length, some of it":    {"HTTP/1.1 200 OK\r\nContent-Length: 123\r\n\r\nhalf", "half"},
		"chunked":                      {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", "half"},
		"until the end, and reset":     {"HTTP/1.1 200 OK\r\nX: 1\r\n\r\nhalf", "half"},
	} {
		t.Run(name, func(t *testing.T) {
			seen := make(chan struct{})
			service := &raw{answer: c.answer, after: func(conn *net.TCPConn, _ *bufio.Reader) {
				<-seen
				if strings.Contains(c.answer, "X: 1") {
					_ = conn.SetLinger(0)
				}
			}}
			w := newWorld(t, service.serve)
			visitor := w.dial()
			_, _ = io.WriteString(visitor, get("/"))
			var answer strings.Builder
			b := make([]byte, 1024)
			for !strings.Contains(answer.String(), c.got) {
				n, err := visitor.Read(b)
				answer.Write(b[:n])
				if err != nil {
					t.Fatalf("the visitor got %q and %v before the service had ended", answer.String(), err)
				}
			}
			close(seen)
			rest, err := io.ReadAll(visitor)
			answer.Write(rest)
			if err == nil && (strings.HasSuffix(answer.String(), "0\r\n\r\n") || !strings.Contains(answer.String(), "Content-Length") && !strings.Contains(answer.String(), "chunked")) {
				t.Errorf("the visitor got %q, which looks complete", answer.String())
			}
		})
	}
}

// Each piece comes when it is written (cloudflared#199), the head too.
func TestPiecesComeAsTheyAreWritten(t *testing.T) {
	for name, head := range map[string]string{
		"events":         "Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n",
		"json":           "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n",
		"a known length": "Content-Length: 10\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			pace := make(chan struct{})
			service := &raw{answer: "HTTP/1.1 200 OK\r\n" + head + "\r\n", after: func(c *net.TCPConn, _ *bufio.Reader) {
				<-pace
				for i := range 10 {
					piece := fmt.Sprint(i)
					if strings.Contains(head, "chunked") {
						piece = "1\r\n" + piece + "\r\n"
					}
					_, _ = io.WriteString(c, piece)
					<-pace
				}
				if strings.Contains(head, "chunked") {
					_, _ = io.WriteString(c, "0\r\n\r\n")
				}
			}}
			w := newWorld(t, service.serve)
			visitor := w.dial()
			_, _ = io.WriteString(visitor, get("/"))
			// Nothing of the body has been written, and the head is here.
			res, err := http.ReadResponse(bufio.NewReader(visitor), nil)
			if err != nil {
				t.Fatal(err)
			}
			for i := range 10 {
				pace <- struct{}{}
				b := make([]byte, 1)
				if _, err := io.ReadFull(res.Body, b); err != nil || string(b) != fmt.Sprint(i) {
					t.Fatalf("piece %d is %q: %v", i, b, err)
				}
			}
			pace <- struct{}{}
			if rest, err := io.ReadAll(res.Body); err != nil || len(rest) > 0 {
				t.Errorf("behind the last piece: %q, %v", rest, err)
			}
			_ = res.Body.Close()
		})
	}
}

// The service's heads come as they are: nothing is guessed, added or left out
// (golang.org/issue/8992, liberapay#592).
func TestHeadersOfAnswers(t *testing.T) {
	for name, c := range map[string]struct{ method, answer string }{
		"no type and no date":  {"GET", "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>"},
		"cookies":              {"GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nX-Empty: \r\n\r\n"},
		"HEAD with a length":   {"HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 12345\r\n\r\n"},
		"not modified":         {"GET", "HTTP/1.1 304 Not Modified\r\nEtag: \"x\"\r\n\r\n"},
		"no content":           {"GET", "HTTP/1.1 204 No Content\r\n\r\n"},
		"its own refusal":      {"GET", "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 4\r\n\r\nmine"},
		"encoded":              {"GET", "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\nEtag: \"y\"\r\n\r\nzip?"},
		"a range":              {"GET", "HTTP/1.1 206 Partial Content\r\nContent-Length: 2\r\nContent-Range: bytes 0-1/9\r\n\r\nab"},
		"an unknown status":    {"GET", "HTTP/1.1 299 Whatever\r\nContent-Length: 0\r\n\r\n"},
		"a type and a charset": {"GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: text/x; a=b\r\nDate: Mon, 01 Jan 2001 00:00:00 GMT\r\n\r\nab"},
	} {
		t.Run(name, func(t *testing.T) {
			service := &raw{answer: strings.Replace(c.answer, "\r\n", "\r\nConnection: close\r\n", 1)}
			w := newWorld(t, service.serve)
			got := w.exchange(request(c.method, "/"))
			gotHead, gotBody, _ := strings.Cut(got, "\r\n\r\n")
			wantHead, wantBody, _ := strings.Cut(c.answer, "\r\n\r\n")
			if gotBody != wantBody {
				t.Errorf("the body is %q, want %q", gotBody, wantBody)
			}
			seen := map[string]int{}
			for l := range strings.SplitSeq(wantHead, "\r\n") {
				seen[strings.ToLower(strings.TrimSpace(l))]++
			}
			for i, l := range strings.Split(gotHead, "\r\n") {
				l = strings.ToLower(strings.TrimSpace(l))
				if i == 0 { // the reason is not for machines, and HTTP/2 has none
					first := strings.SplitN(strings.ToLower(wantHead), "\r\n", 2)[0]
					if l[:12] != first[:12] {
						t.Errorf("the status is %q, want %q", l, first)
					}
					delete(seen, first)
					continue
				}
				if l == "connection: close" {
					continue
				}
				if seen[l]--; seen[l] < 0 {
					t.Errorf("the visitor got %q, which the service did not say", l)
				}
			}
			for l, n := range seen {
				if n > 0 {
					t.Errorf("the visitor did not get %q:\n%s", l, gotHead)
				}
			}
		})
	}
}

// Trailers come behind the body, announced or not.
func TestTrailers(t *testing.T) {
	service := &raw{answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: Grpc-Status\r\n\r\n2\r\nok\r\n0\r\nGrpc-Status: 5\r\n\r\n"}
	w := newWorld(t, service.serve)
	visitor := w.dial()
	_, _ = io.WriteString(visitor, get("/"))
	res, err := http.ReadResponse(bufio.NewReader(visitor), nil)
	if err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(res.Body); err != nil || string(body) != "ok" {
		t.Errorf("the body is %q: %v", body, err)
	}
	_ = res.Body.Close()
	if got := res.Trailer.Get("Grpc-Status"); got != "5" {
		t.Errorf("the trailer is %q, want 5", got)
	}
}

// Answers of ours say that they are ours, in the form that was asked for, and are
// kept by nobody.
func TestPages(t *testing.T) {
	w := newWorld(t, (&raw{answer: ok}).serve)
	w.gone = &ingress.Unreachable{Code: "target_offline", Sentence: "The machine that serves this address is not connected."}
	for accept, want := range map[string]string{"text/html,*/*;q=0.8": "text/html; charset=utf-8", "application/json": "application/problem+json",
		"*/*": "text/plain; charset=utf-8", "": "text/plain; charset=utf-8"} {
		answer := w.exchange(get("/", "Accept: "+accept))
		mustContain(t, answer, "HTTP/1.1 502", "Content-Type: "+want, "Tunnox-Error: target_offline", "Cache-Control: no-store",
			"is not connected")
		unknown := w.exchange("GET / HTTP/1.1\r\nHost: <other>.example.org\r\nAccept: " + accept + "\r\nConnection: close\r\n\r\n")
		mustContain(t, unknown, "HTTP/1.1 400")
		unknown = w.exchange("GET / HTTP/1.1\r\nHost: other.example.org\r\nAccept: " + accept + "\r\nConnection: close\r\n\r\n")
		mustContain(t, unknown, "HTTP/1.1 404", "Tunnox-Error: no_such_host")
		if strings.Contains(unknown, "other.example.org") {
			t.Errorf("the page repeats what a stranger wrote: %q", unknown)
		}
	}
}

// A kept connection that died meanwhile is no visitor's trouble.
func TestADeadKeptConnectionCostsNobody(t *testing.T) {
	var served atomic.Int64
	service := func(c *net.TCPConn) {
		b := bufio.NewReader(c)
		if _, err := readHead(b); err != nil {
			return
		}
		served.Add(1)
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok") // and ends, without saying so
	}
	w := newWorld(t, service)
	for i := range 20 {
		method := []string{"GET", "POST"}[i%2]
		mustContain(t, w.exchange(request(method, "/", map[string]string{"GET": "X: 1", "POST": "Content-Length: 0"}[method])), "200 OK")
	}
	if n := served.Load(); n != 20 {
		t.Errorf("the service answered %d requests, want 20", n)
	}
}
