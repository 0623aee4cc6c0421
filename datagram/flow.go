package datagram

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// maxQueued bounds the bytes of a flow that wait for its stream: two of the largest
// datagrams, or about 250 of 512 bytes. What comes beyond that is dropped, as a router
// does: the programs at the ends send again what they need, and slow down.
const maxQueued = 2 * (prefix + MaxPayload)

// errReset is what the reader and the writer of a flow get after Reset.
var errReset = errors.New("datagram: flow was reset")

// errSpared is for an answer that goes to nobody, see [Budget].
var errSpared = errors.New("datagram: the source may be forged")

// Flow is the datagrams of one source address, or of one service, as an end that
// transport.Splice and transport.Join take. Reads give the datagrams that have come,
// with their lengths before them, and writes take such bytes and send them on.
//
// A flow has no half: when one direction ends, so does the other.
type Flow struct {
	send   func(payload []byte) error
	local  net.Addr
	remote net.Addr
	counts *Counts
	over   func() // called once, when the flow has ended or is about to

	heard atomic.Int64 // when a datagram last passed, see clock

	writing sync.Mutex // one writer at a time; guards split
	split   splitter

	mu      sync.Mutex // guards all below
	queue   []byte     // datagrams that wait to be read, from first on
	first   int
	arrived *sync.Cond // something to read, or the end
	ended   bool       // nothing comes any more
	err     error      // after Reset
	onRead  func()
	onRoom  func()
	left    bool // over was called
}

func newFlow(local, remote net.Addr, counts *Counts, send func([]byte) error, over func()) *Flow {
	f := &Flow{send: send, local: local, remote: remote, counts: counts, over: over}
	f.arrived = sync.NewCond(&f.mu)
	f.touch()
	return f
}

// clock is a time that only rises, in nanoseconds.
func clock() int64 { return int64(time.Since(began)) }

var began = time.Now()

func (f *Flow) touch() { f.heard.Store(clock()) }

// silent tells for how long no datagram has passed.
func (f *Flow) silent() time.Duration { return time.Duration(clock() - f.heard.Load()) }

// push puts a datagram behind those that wait, and drops it when there are too many.
// It copies: the caller's buffer takes the next one. It reports whether the reader is
// to be told.
func (f *Flow) push(payload []byte) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	waiting := len(f.queue) - f.first
	if f.ended || waiting+prefix+len(payload) > maxQueued {
		f.counts.Dropped.Add(1)
		return false
	}
	if f.first > 0 && len(f.queue)+prefix+len(payload) > cap(f.queue) {
		f.queue, f.first = append(f.queue[:0], f.queue[f.first:]...), 0
	}
	f.queue = Append(f.queue, payload)
	f.counts.Carried.Add(1)
	return true
}

// tell wakes who reads.
func (f *Flow) tell() {
	f.mu.Lock()
	f.arrived.Broadcast()
	hook := f.onRead
	f.mu.Unlock()
	if hook != nil {
		hook()
	}
}

// take copies what waits. The lock is held.
func (f *Flow) take(b []byte) int {
	n := copy(b, f.queue[f.first:])
	if f.first += n; f.first == len(f.queue) {
		f.first, f.queue = 0, f.queue[:0]
		if cap(f.queue) > 16<<10 {
			f.queue = nil // an idle flow has no buffer
		}
	}
	return n
}

// ReadNow gives what has come, or 0.
func (f *Flow) ReadNow(b []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.err != nil:
		return 0, f.err
	case len(b) == 0:
		return 0, nil
	case f.first < len(f.queue):
		return f.take(b), nil
	case f.ended:
		return 0, io.EOF
	}
	return 0, nil
}

// Read waits for what comes.
func (f *Flow) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.err == nil && !f.ended && f.first == len(f.queue) {
		f.arrived.Wait()
	}
	switch {
	case f.err != nil:
		return 0, f.err
	case f.first < len(f.queue):
		return f.take(b), nil
	}
	return 0, io.EOF
}

// WriteNow sends the datagrams of the pieces. There is always room: what the system
// does not take is lost, as it is on any other way.
func (f *Flow) WriteNow(pieces [][]byte) (n int, err error) {
	f.mu.Lock()
	switch {
	case f.err != nil:
		err = f.err
	case f.ended:
		err = io.ErrClosedPipe
	}
	f.mu.Unlock()
	if err != nil || len(pieces) == 0 {
		return 0, err
	}
	f.writing.Lock()
	defer f.writing.Unlock()
	for _, piece := range pieces {
		f.split.feed(piece, f.emit)
		n += len(piece)
	}
	return n, nil
}

// emit sends one datagram.
func (f *Flow) emit(payload []byte) {
	f.touch()
	switch err := f.send(payload); {
	case err == nil:
		f.counts.Carried.Add(1)
	case errors.Is(err, errSpared):
		f.counts.Spared.Add(1)
	default:
		f.counts.Dropped.Add(1)
	}
}

// Write is WriteNow of one piece.
func (f *Flow) Write(b []byte) (int, error) { return f.WriteNow([][]byte{b}) }

// Watch sets what is called when ReadNow is worth a try, and when WriteNow has an error.
func (f *Flow) Watch(onRead, onRoom func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if onRead != nil {
		f.onRead = onRead
	}
	if onRoom != nil {
		f.onRoom = onRoom
	}
}

// end ends the flow: who reads gets what has come and then the end, or err at once.
func (f *Flow) end(err error) {
	f.mu.Lock()
	first := !f.left
	f.left, f.ended = true, true
	if f.err == nil && err != nil {
		f.err, f.queue, f.first = err, nil, 0
	}
	f.arrived.Broadcast()
	onRead, onRoom := f.onRead, f.onRoom
	f.mu.Unlock()
	if first && f.over != nil {
		f.over()
	}
	for _, hook := range []func(){onRead, onRoom} {
		if hook != nil {
			hook()
		}
	}
}

// finish ends the flow from this side: it was silent for too long, for example.
func (f *Flow) finish() { f.end(nil) }

// CloseWrite ends the flow: nothing comes from the other side any more.
func (f *Flow) CloseWrite() error { f.end(nil); return nil }

// StopRead ends the flow: nobody reads any more.
func (f *Flow) StopRead() error { f.end(nil); return nil }

// Close ends the flow.
func (f *Flow) Close() error { f.end(errReset); return nil }

// Reset ends the flow at once.
func (f *Flow) Reset() error { f.end(errReset); return nil }

// LocalAddr is the address at which the datagrams come in.
func (f *Flow) LocalAddr() net.Addr { return f.local }

// RemoteAddr is whose datagrams they are.
func (f *Flow) RemoteAddr() net.Addr { return f.remote }

// SetDeadline removes deadlines, of which there are none.
func (f *Flow) SetDeadline(t time.Time) error { return noDeadline(t) }

// SetReadDeadline is SetDeadline.
func (f *Flow) SetReadDeadline(t time.Time) error { return noDeadline(t) }

// SetWriteDeadline is SetDeadline.
func (f *Flow) SetWriteDeadline(t time.Time) error { return noDeadline(t) }

func noDeadline(t time.Time) error {
	if t.IsZero() {
		return nil
	}
	return os.ErrNoDeadline
}
