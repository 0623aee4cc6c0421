package transport

import (
	"encoding/binary"
	"net"
	"sync"
	"time"
)

// carrier is the connection beneath TLS. It reads and writes several records in one
// system call, and gives them to TLS one by one. Package crypto/tls alone makes a system
// call for each record. If it gets many bytes at once, it keeps a buffer of twice that
// size for good.
type carrier struct {
	net.Conn

	// Only the reader uses these.
	begun  bool      // the first byte has come
	ahead  *prefetch // the bytes that were read ahead; has no buffer while empty
	header [recordHeader]byte
	got    int // bytes of header
	left   int // bytes of the record that have not been read

	// The reader calls beforeWait, if set, when TLS has got all received bytes and the
	// reader may have to wait for more.
	beforeWait func()

	now *promptWriter // writes the bytes that the socket takes at once; nil if this system cannot do that

	mu        sync.Mutex // needed because TLS also writes by itself: a key update, the last alert
	gathering bool
	gather    *[]byte // nil outside of a batch
}

// recordHeader is the size of a TLS record's header: type, version, length.
const recordHeader = 5

func newCarrier(conn net.Conn) *carrier {
	return &carrier{Conn: conn, ahead: newPrefetch(conn), now: newPromptWriter(conn)}
}

// await waits until there is something to read, or an error, which the next Read returns.
// An idle session waits here and not inside TLS, where the wait would keep a stack of
// 8 KiB.
func (c *carrier) await() {
	if c.ahead == nil || len(c.ahead.held) > 0 {
		return
	}
	if c.beforeWait != nil {
		c.beforeWait()
	}
	_ = c.ahead.fill()
}

// Read returns at most the rest of a record, or the rest of its header if the body has
// not been read ahead. When the first byte has come, Read removes the read deadline for
// it; the handshake has a limit of its own.
func (c *carrier) Read(b []byte) (n int, err error) {
	if c.beforeWait != nil && (c.ahead == nil || len(c.ahead.held) == 0) {
		c.beforeWait()
	}
	if c.ahead != nil {
		if err := c.ahead.fill(); err != nil {
			return 0, err
		}
		if c.got == 0 && len(c.ahead.held) >= recordHeader {
			c.got = copy(c.header[:], c.ahead.held)
			c.left = recordHeader + c.body()
		}
	}
	if c.got < recordHeader {
		b = b[:min(len(b), recordHeader-c.got)]
	} else {
		b = b[:min(len(b), c.left)]
	}
	if c.ahead != nil {
		n = c.ahead.take(b)
	} else if n, err = c.Conn.Read(b); n <= 0 {
		return n, err
	}
	if !c.begun {
		c.begun = true
		_ = c.Conn.SetReadDeadline(time.Time{})
	}
	if c.got < recordHeader {
		c.got += copy(c.header[c.got:], b[:n])
		c.left = c.body()
	} else {
		c.left -= n
	}
	if c.got == recordHeader && c.left == 0 {
		c.got = 0
	}
	return n, err
}

// body is the length of the body, from the header.
func (c *carrier) body() int { return bodyOf(c.header[:]) }

// bodyOf is the length of a record's body, from its header.
func bodyOf(header []byte) int { return int(binary.BigEndian.Uint16(header[3:])) }

// carried is the size of the buffer for one batch: writePieces full records and one
// record of small frames.
const carried = 84 << 10

var carriedPool = sync.Pool{New: func() any { b := make([]byte, 0, carried); return &b }}

// Write writes, or keeps b for the end of the batch.
func (c *carrier) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.gathering {
		return c.Conn.Write(b)
	}
	if c.gather == nil {
		c.gather = carriedPool.Get().(*[]byte)
	}
	if len(*c.gather)+len(b) > cap(*c.gather) {
		if err := c.flush(); err != nil {
			return 0, err
		}
	}
	if len(b) > cap(*c.gather) {
		return c.Conn.Write(b)
	}
	*c.gather = append(*c.gather, b...)
	return len(b), nil
}

// begin begins a batch.
func (c *carrier) begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gathering = true
}

// end writes the gathered bytes.
func (c *carrier) end() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gathering = false
	if c.gather == nil {
		return nil
	}
	err := c.flush()
	carriedPool.Put(c.gather)
	c.gather = nil
	return err
}

// endNow writes the gathered bytes as far as the connection takes them without a wait.
// The rest stays gathered, ahead of later writes of TLS, until end is called. c.now must
// not be nil.
func (c *carrier) endNow() (all bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, err := 0, error(nil)
	if c.gather != nil {
		n, err = c.now.write(*c.gather)
		if left := copy(*c.gather, (*c.gather)[n:]); left > 0 && err == nil {
			*c.gather = (*c.gather)[:left]
			return false, nil
		}
		*c.gather = (*c.gather)[:0]
		carriedPool.Put(c.gather)
		c.gather = nil
	}
	c.gathering = false
	return true, err
}

// flush writes the gathered bytes. The caller holds the lock.
func (c *carrier) flush() error {
	_, err := c.Conn.Write(*c.gather)
	*c.gather = (*c.gather)[:0]
	return err
}
