package transport

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// webSocket makes a connection of bytes from one that has agreed on WebSocket. One
// goroutine may read, and one at a time may write.
type webSocket struct {
	net.Conn
	client bool // this side masks

	// Only the reader uses these.
	buf     *[]byte // bytes that were read ahead; nil while there are none
	held    []byte  // of buf, or what came with the upgrade
	drained bool    // the last read of Conn returned less than was asked for
	left    uint64  // bytes of the frame that were not read
	unmask  wsKey

	out     sync.Mutex // held from begin to end, because no frame may begin inside of another
	mask    wsKey
	ahead   *[]byte // the frame's next record
	pending []byte  // a pong that could not be written at once
	closing bool    // a close frame was written

	pongMu sync.Mutex // guards pending
}

// wsRead is how much is read ahead. Headers and small frames pass through this buffer;
// the rest of a large payload does not.
const wsRead = 512

// wsRecord is how much is written at once: one TLS record.
const wsRecord = 16 << 10

var (
	wsReaders = sync.Pool{New: func() any { b := make([]byte, wsRead); return &b }}
	wsWriters = sync.Pool{New: func() any { b := make([]byte, 0, wsRecord); return &b }}
)

// newWebSocket makes a webSocket. held are bytes that came behind the upgrade.
func newWebSocket(conn net.Conn, client bool, held []byte) *webSocket {
	return &webSocket{Conn: conn, client: client, held: held}
}

// empty tells whether everything that has come was read.
func (w *webSocket) empty() bool { return w.drained && len(w.held) == 0 }

// fill reads ahead. It returns when at least n bytes are held; n is at most wsRead.
func (w *webSocket) fill(n int) error {
	for len(w.held) < n {
		b := w.buf
		if b == nil {
			b = wsReaders.Get().(*[]byte)
		}
		kept := copy(*b, w.held)
		got, err := w.Conn.Read((*b)[kept:])
		w.drained = got < len(*b)-kept
		w.buf, w.held = b, (*b)[:kept+got]
		if len(w.held) == 0 {
			w.free()
		}
		if err != nil && len(w.held) < n {
			if errors.Is(err, io.EOF) && len(w.held) > 0 {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
	}
	return nil
}

// take removes n bytes that are held. They stay valid until the next fill.
func (w *webSocket) take(n int) []byte {
	b := w.held[:n]
	if w.held = w.held[n:]; len(w.held) == 0 {
		w.free()
	}
	return b
}

// free gives the buffer back. An idle connection has none.
func (w *webSocket) free() {
	if w.buf != nil {
		wsReaders.Put(w.buf)
		w.buf = nil
	}
	w.held = nil
}

// Read reads payload. The borders of frames mean nothing. It returns io.EOF when the peer
// has sent a close frame.
func (w *webSocket) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	for w.left == 0 {
		if err := w.next(); err != nil {
			return 0, err
		}
	}
	b = b[:min(uint64(len(b)), w.left)]
	if len(w.held) == 0 && (len(b) < wsRead || w.left < wsRead) {
		if err := w.fill(1); err != nil {
			return 0, cutShort(err)
		}
	}
	n := len(w.held)
	if n > 0 {
		n = copy(b, w.held)
		w.unmask.apply(b[:n], b[:n])
		w.take(n)
	} else {
		var err error
		n, err = w.Conn.Read(b)
		w.drained = n < len(b)
		w.unmask.apply(b[:n], b[:n])
		if n == 0 && err != nil {
			return 0, cutShort(err)
		}
	}
	w.left -= uint64(n)
	return n, nil
}

// cutShort makes an end inside of a frame an error.
func cutShort(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// next reads the header of the next frame that has payload, and answers what comes
// before it.
func (w *webSocket) next() error {
	if err := w.fill(2); err != nil {
		return err
	}
	size := wsHeaderSize([2]byte(w.held))
	if err := w.fill(size); err != nil {
		return cutShort(err)
	}
	h, err := parseWSHeader(w.take(size))
	if err != nil {
		return err
	}
	if h.masked == w.client {
		return errWebSocket // a server must not mask, a client must
	}
	w.unmask.begin(h)
	if h.kind < wsClose {
		w.left = h.length
		return nil
	}
	if err := w.fill(int(h.length)); err != nil {
		return cutShort(err)
	}
	var payload []byte
	if h.length > 0 {
		payload = append(payload, w.take(int(h.length))...)
		w.unmask.apply(payload, payload)
	}
	switch h.kind {
	case wsPing:
		w.pong(payload)
	case wsClose:
		return io.EOF
	}
	return nil
}

// pong answers a ping. If this side is writing, the answer goes before the next frame:
// the reader must not wait for a writer.
func (w *webSocket) pong(payload []byte) {
	w.pongMu.Lock()
	w.pending = w.control(wsPong, payload) // an older one need not be answered, says section 5.5.3
	w.pongMu.Unlock()
	if w.out.TryLock() {
		_ = w.answer() // if it fails, the next read or write does too
		w.out.Unlock()
	}
}

// answer writes a pending pong. w.out is held.
func (w *webSocket) answer() error {
	w.pongMu.Lock()
	pong := w.pending
	w.pending = nil
	w.pongMu.Unlock()
	if pong == nil {
		return nil
	}
	_, err := w.Conn.Write(pong)
	return err
}

// control makes a control frame.
func (w *webSocket) control(kind byte, payload []byte) []byte {
	h := w.header(kind, len(payload))
	b := appendWSHeader(nil, h)
	var k wsKey
	k.begin(h)
	b = append(b, payload...)
	k.apply(b[len(b)-len(payload):], payload)
	return b
}

// header makes the header of a frame of this side. The key is of a strong generator, as
// section 5.3 asks.
func (w *webSocket) header(kind byte, length int) wsHeader {
	h := wsHeader{kind: kind, fin: true, masked: w.client, length: uint64(length)}
	if w.client {
		binary.BigEndian.PutUint32(h.key[:], rand.Uint32())
	}
	return h
}

// Write writes one frame.
func (w *webSocket) Write(b []byte) (int, error) {
	if err := w.begin(len(b)); err != nil {
		return 0, err
	}
	n, err := w.add(b)
	if ended := w.end(); err == nil {
		err = ended
	}
	return n, err
}

// begin begins a frame of n bytes. Calls of add give the bytes, and end ends the frame.
// If begin fails, the frame has not begun.
func (w *webSocket) begin(n int) error {
	w.out.Lock()
	if err := w.answer(); err != nil {
		w.out.Unlock()
		return err
	}
	h := w.header(wsBinary, n)
	w.mask.begin(h)
	w.ahead = wsWriters.Get().(*[]byte)
	*w.ahead = appendWSHeader((*w.ahead)[:0], h)
	return nil
}

// add writes the frame's next bytes, in full records.
func (w *webSocket) add(b []byte) (n int, err error) {
	for len(b) > 0 {
		buf := *w.ahead
		if len(buf) == cap(buf) {
			if _, err := w.Conn.Write(buf); err != nil {
				return n, err
			}
			buf = buf[:0]
		}
		have := len(buf)
		buf = buf[:min(cap(buf), have+len(b))]
		k := len(buf) - have
		w.mask.apply(buf[have:], b[:k])
		*w.ahead = buf
		b, n = b[k:], n+k
	}
	return n, nil
}

// end writes what is left of the frame.
func (w *webSocket) end() error {
	_, err := w.Conn.Write(*w.ahead)
	wsWriters.Put(w.ahead)
	w.ahead = nil
	w.out.Unlock()
	return err
}

// Close tells the peer, unless this side is writing, and closes the connection.
func (w *webSocket) Close() error {
	if w.out.TryLock() {
		if !w.closing {
			w.closing = true
			_ = w.Conn.SetWriteDeadline(time.Now().Add(byeLimit))
			_, _ = w.Conn.Write(w.control(wsClose, []byte{0x03, 0xe8})) // 1000: its work is done
		}
		w.out.Unlock()
	}
	return w.Conn.Close()
}

// Scheme is the scheme of the carrier.
func (s *muxSession) Scheme() string {
	ws, ok := s.conn.(*webSocket)
	if !ok && s.config.beneath != nil {
		ws, ok = s.config.beneath.Conn.(*webSocket)
	}
	if !ok {
		return SchemeTLS
	}
	if _, over := ws.Conn.(*tls.Conn); over {
		return SchemeWSS
	}
	return SchemeWS
}
