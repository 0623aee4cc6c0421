package transport

import "net"

// Records is a connection to put beneath TLS. It reads and writes several records at once,
// where package crypto/tls would make a system call for each record. One goroutine may
// read, and one goroutine at a time may write.
type Records struct{ *carrier }

// NewRecords makes a Records from a connection. It does not change the deadlines.
func NewRecords(conn net.Conn) Records {
	c := newCarrier(conn)
	c.begun = true
	return Records{c}
}

// Whole reports whether TLS can read a record without a wait.
func (r Records) Whole() bool {
	if r.ahead == nil || r.got != 0 || len(r.ahead.held) < recordHeader {
		return false
	}
	return len(r.ahead.held) >= recordHeader+bodyOf(r.ahead.held)
}

// Gather keeps the bytes that are written until Flush.
func (r Records) Gather() { r.begin() }

// Flush writes the bytes that were kept.
func (r Records) Flush() error { return r.end() }
