package inspector

import (
	"io"
	"sync"
	"time"

	"github.com/tunnox-net/tunnox/transport"
)

const (
	// maxBehind is how many bytes of a direction may wait to be parsed. Beyond that the
	// connection waits for the parser.
	maxBehind = 1 << 20
	// maxWait is how long it waits. Then it goes on, and is recorded no more: what it
	// carries is no HTTP, or this machine is too busy.
	maxWait = time.Second
)

// tee is a connection to a service. What is written to it are requests, what is read
// from it are answers; both go into a feed as well.
type tee struct {
	transport.Duplex
	requests, answers *feed
}

func newTee(i *Inspector, mapping int64, conn transport.Duplex) *tee {
	t := &tee{Duplex: conn, requests: newFeed(), answers: newFeed()}
	go i.record(mapping, t.requests, t.answers)
	return t
}

func (t *tee) Read(b []byte) (int, error) {
	n, err := t.Duplex.Read(b)
	t.answers.add(b[:n], time.Now())
	if err != nil {
		t.answers.end(err)
	}
	return n, err
}

func (t *tee) Write(b []byte) (int, error) {
	t.requests.add(b, time.Now()) // the answer, and the end, may be here before Write returns
	return t.Duplex.Write(b)
}

func (t *tee) CloseWrite() error {
	t.requests.end(io.EOF)
	return t.Duplex.CloseWrite()
}

func (t *tee) Close() error {
	t.requests.end(io.ErrUnexpectedEOF)
	t.answers.end(io.ErrUnexpectedEOF)
	return t.Duplex.Close()
}

// SetLinger says how the socket below ends, see [transport.Unfinished].
func (t *tee) SetLinger(sec int) error {
	if c, ok := t.Duplex.(interface{ SetLinger(sec int) error }); ok {
		return c.SetLinger(sec)
	}
	return nil
}

// feed is one direction of a connection, as its recorder reads it.
type feed struct {
	mu     sync.Mutex
	more   sync.Cond // chunks, err or over have changed
	chunks []chunk
	behind int
	err    error // after the chunks
	over   bool  // nobody reads any more

	came time.Time // when the last chunk that was read had come; the reader's
	rest []byte    // the reader's
}

type chunk struct {
	bytes []byte
	came  time.Time
}

func newFeed() *feed {
	f := &feed{}
	f.more.L = &f.mu
	return f
}

// add copies b, which came at a time.
func (f *feed) add(b []byte, came time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	full := func() bool { return f.behind > 0 && f.behind+len(b) > maxBehind && !f.over && f.err == nil }
	if full() {
		late := false
		timer := time.AfterFunc(maxWait, func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			late = true
			f.more.Broadcast()
		})
		for full() && !late {
			f.more.Wait()
		}
		timer.Stop()
		if full() {
			f.err = errBehind
		}
	}
	if len(b) > 0 && !f.over && f.err == nil {
		f.chunks = append(f.chunks, chunk{append([]byte(nil), b...), came})
		f.behind += len(b)
	}
	f.more.Broadcast()
}

// end says that no more comes.
func (f *feed) end(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		f.err = err
	}
	f.more.Broadcast()
}

// leave says that nobody reads any more.
func (f *feed) leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.over, f.chunks, f.behind = true, nil, 0
	f.more.Broadcast()
}

func (f *feed) Read(b []byte) (int, error) {
	if len(f.rest) == 0 {
		f.mu.Lock()
		for len(f.chunks) == 0 && f.err == nil {
			f.more.Wait()
		}
		if len(f.chunks) == 0 {
			f.mu.Unlock()
			return 0, f.err
		}
		f.rest, f.came = f.chunks[0].bytes, f.chunks[0].came
		f.behind -= len(f.rest)
		f.chunks = f.chunks[1:]
		f.more.Broadcast()
		f.mu.Unlock()
	}
	n := copy(b, f.rest)
	f.rest = f.rest[n:]
	return n, nil
}
