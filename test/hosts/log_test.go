package hosts

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/programs"
)

// entry is a line of the access log.
type entry struct {
	Time      time.Time `json:"time"`
	Visitor   string    `json:"visitor"`
	Host      string    `json:"host"`
	Mapping   int64     `json:"mapping_id"`
	User      string    `json:"user"`
	Method    string    `json:"method"`
	Path      string    `json:"path"`
	Protocol  string    `json:"protocol"`
	Status    int       `json:"status"`
	Whole     bool      `json:"whole"`
	Error     string    `json:"error"`
	Received  int64     `json:"received"`
	Sent      int64     `json:"sent"`
	Seconds   float64   `json:"seconds"`
	UserAgent string    `json:"user_agent"`
}

func entries(t *testing.T, file string) (all []entry) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var e entry
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		all = append(all, e)
	}
	return all
}

// Each request is one line, and one in the metrics, by its final status; a log that is
// renamed goes on under its name.
func TestAccessLog(t *testing.T) {
	file := filepath.Join(t.TempDir(), "access.log")
	w := embedded(t, "--access-log", file, "--trusted-proxies", "127.0.0.9")
	m := w.publish(web(t, func(out http.ResponseWriter, in *http.Request) {
		switch in.URL.Path {
		case "/hints":
			out.WriteHeader(http.StatusEarlyHints)
			out.WriteHeader(http.StatusTeapot)
		case "/cut":
			out.Header().Set("Content-Length", "100")
			fmt.Fprint(out, "half")
			out.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		case "/ws":
			conn, b, err := http.NewResponseController(out).Hijack()
			if err != nil {
				return
			}
			defer conn.Close()
			fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n12345678")
			_, _ = io.Copy(io.Discard, b)
		default:
			n, _ := io.Copy(io.Discard, in.Body)
			fmt.Fprint(out, "got ", n)
		}
	}), map[string]any{"public_host": "shop", "access": map[string]any{"basic": []any{map[string]any{"username": "ann", "password": "correct horse"}}}})
	w.answers(m.URL, 401, "")
	before := len(entries(t, file))
	programs.Eventually(t, limit, func() error {
		if before = len(entries(t, file)); before == 0 {
			return fmt.Errorf("the log is empty")
		}
		return nil
	})
	host := "shop." + baseDomain
	raw := func(request string) {
		t.Helper()
		conn, err := net.Dial("tcp", w.address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(limit))
		_, _ = io.WriteString(conn, request)
		if strings.Contains(request, "Upgrade") {
			_ = conn.(*net.TCPConn).CloseWrite()
		}
		_, _ = io.Copy(io.Discard, bufio.NewReader(conn))
	}
	raw("POST /a%20b?token=secret HTTP/1.1\r\nHost: Shop." + baseDomain + ":80\r\nConnection: close\r\nUser-Agent: test\r\nContent-Length: 5\r\n" + annsBasic + "\r\n\r\nhello")
	raw(asked(host, "/hints", annsBasic))
	raw(asked(host, "/cut", annsBasic))
	raw(asked("nobody."+baseDomain, "/"))
	raw("GET /ws HTTP/1.1\r\nHost: " + host + "\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" + annsBasic + "\r\n\r\nabc")
	var got []entry
	programs.Eventually(t, limit, func() error {
		if got = entries(t, file)[before:]; len(got) != 5 {
			return fmt.Errorf("%d lines", len(got))
		}
		return nil
	})
	for i, want := range []entry{
		{Host: host, Mapping: m.ID, User: "ann", Method: "POST", Path: "/a%20b", Status: 200, Whole: true, Received: 5, Sent: 5, UserAgent: "test"},
		{Host: host, Mapping: m.ID, User: "ann", Method: "GET", Path: "/hints", Status: 418, Whole: true},
		{Host: host, Mapping: m.ID, User: "ann", Method: "GET", Path: "/cut", Status: 200, Sent: 4},
		{Host: "nobody." + baseDomain, Method: "GET", Path: "/", Status: 404, Whole: true, Error: "no_such_host", Sent: got[3].Sent},
		{Host: host, Mapping: m.ID, User: "ann", Method: "GET", Path: "/ws", Status: 101, Whole: true, Received: 3, Sent: 8},
	} {
		g := got[i]
		if time.Since(g.Time) > 2*limit || g.Seconds <= 0 || g.Protocol != "HTTP/1.1" {
			t.Errorf("line %d: %+v", i, g)
		}
		want.Time, want.Seconds, want.Protocol, want.Visitor = g.Time, g.Seconds, g.Protocol, "127.0.0.1"
		if g != want {
			t.Errorf("line %d is\n%+v, want\n%+v", i, g, want)
		}
	}
	for metric, least := range map[string]float64{
		fmt.Sprintf(`tunnox_http_requests_total{class="2xx",mapping_id="%d"}`, m.ID):     1,
		fmt.Sprintf(`tunnox_http_requests_total{class="4xx",mapping_id="%d"}`, m.ID):     2,
		fmt.Sprintf(`tunnox_http_requests_total{class="1xx",mapping_id="%d"}`, m.ID):     1,
		fmt.Sprintf(`tunnox_http_requests_total{class="aborted",mapping_id="%d"}`, m.ID): 1,
		`tunnox_http_requests_total{class="4xx",mapping_id="none"}`:                      1,
		`tunnox_http_request_seconds_count{class="2xx"}`:                                 1,
	} {
		if n, err := w.entry.Metric(metric); err != nil || n < least {
			t.Errorf("%s is %v, %v, want %v or more", metric, n, err, least)
		}
	}

	old := file + ".1"
	if err := os.Rename(file, old); err != nil {
		t.Fatal(err)
	}
	if p, err := os.FindProcess(w.entry.PID()); err != nil || p.Signal(syscall.SIGHUP) != nil {
		t.Fatalf("SIGHUP: %v", err)
	}
	const later = 50
	for i := range later { // before and behind the change of files
		raw(asked(host, fmt.Sprintf("/later-%d", i), annsBasic))
		time.Sleep(40 * time.Millisecond) // they are spread over the second in which the file is looked at
	}
	programs.Eventually(t, limit, func() error {
		n := 0
		for _, e := range append(entries(t, old), entries(t, file)...) {
			if strings.HasPrefix(e.Path, "/later-") {
				n++
			}
		}
		if n != later || len(entries(t, file)) == 0 {
			return fmt.Errorf("%d of %d lines, %d of them in the new file", n, later, len(entries(t, file)))
		}
		return nil
	})
	for _, secret := range []string{"secret", "correct horse", "Basic"} {
		for _, f := range []string{old, file} {
			if text, err := os.ReadFile(f); err != nil || strings.Contains(string(text), secret) {
				t.Errorf("the log has %q in it, %v", secret, err)
			}
		}
	}
}
