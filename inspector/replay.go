package inspector

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/tunnox-net/tunnox/transport"
)

// replayLimit bounds a replay, from the dial to the end of the answer.
const replayLimit = 30 * time.Second

// change is what a replay does differently; nil is as it was.
type change struct {
	Method *string      `json:"method"`
	Target *string      `json:"target"`
	Header *http.Header `json:"header"`
	Body   *string      `json:"body"`
}

// replay sends a request again, as it was or changed, to the service itself. It is
// recorded like the others.
func (i *Inspector) replay(w http.ResponseWriter, r *http.Request) {
	x := i.asked(w, r)
	if x == nil {
		return
	}
	var c change
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&c); err != nil {
		problem(w, http.StatusUnprocessableEntity, "What to change cannot be read: "+err.Error())
		return
	}
	request, err := x.again(c)
	if err != nil {
		problem(w, http.StatusUnprocessableEntity, err.Error())
		return
	}
	i.mu.Lock()
	watched := i.watched[x.Mapping]
	i.mu.Unlock()
	if watched == nil || watched.dial == nil {
		problem(w, http.StatusConflict, "The tunnel of this request has ended: start it again to replay.")
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), replayLimit)
	defer cancel()
	id, err := i.send(ctx, x, request, watched.dial)
	if err != nil {
		problem(w, http.StatusBadGateway, "The service did not answer: "+err.Error())
		return
	}
	answer(w, map[string]int64{"id": id})
}

// again gives the bytes of the request, changed.
func (x *Exchange) again(c change) (string, error) {
	if x.Upgrade {
		return "", fmt.Errorf("a connection that became another protocol cannot be replayed")
	}
	if x.Done == 0 {
		return "", fmt.Errorf("the request has not ended yet")
	}
	if c.Body == nil && x.Request.cut() {
		return "", fmt.Errorf("only the first %d of %d bytes of the body were kept: give a body of your own", len(x.Request.Body), x.Request.Length)
	}
	method, target, header, body := x.Method, x.Target, x.Request.Header.Clone(), string(x.Request.Body)
	if c.Method != nil {
		method = *c.Method
	}
	if c.Target != nil {
		target = *c.Target
	}
	if c.Header != nil {
		header = c.Header.Clone()
	}
	if c.Body != nil {
		body = *c.Body
		header.Del("Content-Encoding")
	}
	if strings.ContainsAny(method+target, " \t\r\n") || method == "" || !strings.HasPrefix(target, "/") && target != "*" {
		return "", fmt.Errorf("%q %q is no method and path", method, target)
	}
	for _, hop := range []string{"Connection", "Keep-Alive", "Transfer-Encoding", "Trailer", "Expect", "Content-Length", "Host"} {
		header.Del(hop)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\n", method, target, x.Host)
	if err := header.WriteSubset(&b, nil); err != nil {
		return "", err
	}
	if body != "" || x.Request.Header.Get("Content-Length") != "" {
		fmt.Fprintf(&b, "Content-Length: %s\r\n", strconv.Itoa(len(body)))
	}
	b.WriteString("Connection: close\r\n\r\n" + body)
	return b.String(), nil
}

// send does a request on a connection of its own and gives its number.
func (i *Inspector) send(ctx context.Context, of *Exchange, request string, dial func(context.Context) (net.Conn, error)) (int64, error) {
	conn, err := dial(ctx)
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	requests, answers := newFeed(), newFeed()
	requests.add([]byte(request), time.Now())
	requests.end(io.EOF)
	id := make(chan int64, 1)
	go func() {
		n, _ := i.exchange(of.Mapping, of.ID, requests, answers, bufio.NewReader(requests), bufio.NewReader(answers))
		id <- n
	}()
	seen := &tee{Duplex: oneWay{conn}, requests: newFeed(), answers: answers}
	seen.requests.leave()
	if _, err := io.WriteString(seen, request); err != nil {
		answers.end(err)
		<-id
		return 0, err
	}
	_, err = io.Copy(io.Discard, seen)
	answers.end(io.EOF)
	return <-id, err
}

// oneWay is a connection whose sides are not ended one by one.
type oneWay struct{ net.Conn }

func (oneWay) CloseWrite() error { return nil }

var _ transport.Duplex = oneWay{}
