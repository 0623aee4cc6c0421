package inspector

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"
)

var (
	errBehind  = errors.New("more came than could be recorded")
	errNotHTTP = errors.New("the service does not speak HTTP/1.1 here; TLS and HTTP/2 cannot be shown")
)

// record reads the exchanges of one connection until it ends.
func (i *Inspector) record(mapping int64, requests, answers *feed) {
	defer requests.leave()
	defer answers.leave()
	asked, said := bufio.NewReader(requests), bufio.NewReader(answers)
	for {
		if err := looksLikeHTTP(asked); err != nil {
			if errors.Is(err, errNotHTTP) {
				i.log.Debug("a connection is not recorded", "mapping", mapping, "reason", err)
			}
			return
		}
		if _, more := i.exchange(mapping, 0, requests, answers, asked, said); !more {
			return
		}
	}
}

// looksLikeHTTP waits for the first byte of a request.
func looksLikeHTTP(asked *bufio.Reader) error {
	first, err := asked.Peek(1)
	if err != nil {
		return err
	}
	if first[0] < 'A' || first[0] > 'Z' {
		return errNotHTTP
	}
	if start, err := asked.Peek(4); err == nil && string(start) == "PRI " {
		return errNotHTTP
	}
	return nil
}

// exchange records one request with its answer. It gives the number, 0 when no request
// came, and tells whether another one can follow.
func (i *Inspector) exchange(mapping, replayOf int64, requests, answers *feed, asked, said *bufio.Reader) (id int64, more bool) {
	r, err := http.ReadRequest(asked)
	if err != nil {
		return 0, false
	}
	started := requests.came
	x := &Exchange{ID: i.next(), Mapping: mapping, ReplayOf: replayOf, Started: started, Method: r.Method, Target: r.RequestURI, Host: r.Host,
		Visitor: lastOf(r.Header.Get("X-Forwarded-For"))}
	since := func(t time.Time) float64 { return max(float64(t.Sub(started).Microseconds())/1000, 0.001) }
	x.Request = &Message{Header: r.Header, Proto: r.Proto}
	i.store(copyOf(x))

	// The answer may begin before the request is whole.
	whole := make(chan error, 1)
	body := &Message{}
	go func() { whole <- body.read(r.Body) }()
	answer, failed := readAnswer(said, r)
	if failed == nil {
		defer func() { _ = answer.Body.Close() }()
		x.First, x.Status = since(answers.came), answer.StatusCode
		x.Response = &Message{Header: answer.Header, Proto: answer.Proto}
		x.Upgrade = answer.StatusCode == http.StatusSwitchingProtocols
		i.store(copyOf(x))
		if !x.Upgrade {
			failed = x.Response.read(answer.Body)
		}
	}
	if failed != nil {
		x.Error = reason(failed)
		requests.end(failed) // the rest of the request will not be waited for
	}
	asking := <-whole
	x.Request.Body, x.Request.Length = body.Body, body.Length
	x.Sent = since(requests.came)
	x.Done = since(answers.came)
	if failed == nil && asking != nil && !x.Upgrade {
		x.Error = reason(asking)
	}
	i.store(copyOf(x))
	return x.ID, failed == nil && asking == nil && !x.Upgrade && !answer.Close && !r.Close
}

// readAnswer reads the head of the final answer; those before it, such as 100 and 103,
// are passed over.
func readAnswer(said *bufio.Reader, r *http.Request) (*http.Response, error) {
	for {
		answer, err := http.ReadResponse(said, r)
		if err != nil {
			return nil, err
		}
		if answer.StatusCode >= 200 || answer.StatusCode == http.StatusSwitchingProtocols {
			return answer, nil
		}
	}
}

// read reads a body and keeps its beginning.
func (m *Message) read(body io.ReadCloser) error {
	defer func() { _ = body.Close() }()
	var kept bytes.Buffer
	_, err := io.CopyN(&kept, body, maxBody)
	m.Body, m.Length = kept.Bytes(), int64(kept.Len())
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err == nil {
		var rest int64
		rest, err = io.Copy(io.Discard, body)
		m.Length += rest
	}
	return err
}

func copyOf(x *Exchange) *Exchange {
	c := *x
	if x.Request != nil {
		request := *x.Request
		c.Request = &request
	}
	if x.Response != nil {
		response := *x.Response
		c.Response = &response
	}
	return &c
}

// reason is what the page says of an exchange that did not end well.
func reason(err error) string {
	switch {
	case errors.Is(err, errBehind):
		return "not recorded further: " + errBehind.Error()
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "the connection ended before the end of the message"
	}
	return err.Error()
}

// lastOf is the address that our own server added to the list.
func lastOf(forwarded string) string {
	all := strings.Split(forwarded, ",")
	return strings.TrimSpace(all[len(all)-1])
}
