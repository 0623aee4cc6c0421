package transport

import (
	"net"
	"sync"
	"time"
)

// carrier is the connection beneath TLS. It gathers the records of one batch, so
// that they cross into the kernel, and wake the peer, once instead of one by one.
type carrier struct {
	net.Conn
	begun bool // the first byte has come; only the reader looks

	mu        sync.Mutex // TLS writes on its own, too: a key update, the last alert
	gathering bool
	gather    *[]byte // nil outside of a batch
}

// gatherSize is the space for a batch: writePieces full records and some small.
const gatherSize = 72 << 10

var gatherPool = sync.Pool{New: func() any { b := make([]byte, 0, gatherSize); return &b }}

// Read lifts the read deadline for the first byte once that has come; the
// handshake has a limit of its own.
func (c *carrier) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 && !c.begun {
		c.begun = true
		_ = c.Conn.SetReadDeadline(time.Time{})
	}
	return n, err
}

// Write writes, or keeps b for the end of the batch.
func (c *carrier) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.gathering {
		return c.Conn.Write(b)
	}
	if c.gather == nil {
		c.gather = gatherPool.Get().(*[]byte)
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

// end writes what was gathered.
func (c *carrier) end() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gathering = false
	if c.gather == nil {
		return nil
	}
	err := c.flush()
	gatherPool.Put(c.gather)
	c.gather = nil
	return err
}

// flush writes what was gathered. The lock is held.
func (c *carrier) flush() error {
	_, err := c.Conn.Write(*c.gather)
	*c.gather = (*c.gather)[:0]
	return err
}
