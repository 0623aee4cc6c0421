package transport

import "net"

// Records is a connection to put beneath TLS where package crypto/tls would make a
// system call for each record: it reads and writes several at once. One goroutine
// reads, and one at a time writes.
type Records struct{ *carrier }

// NewRecords makes one of a connection, whose deadlines stay what they are.
func NewRecords(conn net.Conn) Records {
	c := newCarrier(conn)
	c.begun = true
	return Records{c}
}

// Whole tells whether TLS can read a record without waiting.
func (r Records) Whole() bool {
	if r.ahead == nil || r.got != 0 || len(r.ahead.held) < recordHeader {
		return false
	}
	return len(r.ahead.held) >= recordHeader+bodyOf(r.ahead.held)
}

// Gather keeps what is written until Flush.
func (r Records) Gather() { r.begin() }

// Flush writes what was kept.
func (r Records) Flush() error { return r.end() }
