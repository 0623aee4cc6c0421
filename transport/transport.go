// Package transport makes sessions between an agent and a forwarder, and streams in
// these sessions, over any carrier of bytes.
//
// Its duty is to make all carriers look the same: TLS 1.3 over TCP with a multiplexer,
// and memory for tests. transport/transporttest is the test suite for all of them.
//
// A new carrier implements [Session] and [Stream]; no other code depends on its types.
// It may use the multiplexer over a connection of its own ([Multiplex]), and the gate
// for strangers ([Gate]). If its streams implement [Prompt], a [Splice] of them needs
// no goroutine. If they implement [ReadStopper], a writer learns at once that its peer
// reads no more. [Carriers] finds the carrier by the scheme of an address.
//
// The limit of the package: it does not know the identity of the peer or the meaning of
// the bytes. The messages of package wire prove the identity, bound to
// [Session.Binding].
package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"
)

// Session is one link between two peers, carrying many streams. All methods may
// be called concurrently.
type Session interface {
	// Open begins a stream. It does not wait for the peer: data may be written at
	// once, and the peer learns of the stream with the first data or with a close.
	// Open fails when the session has ended (ErrSessionClosed). When too many opened
	// streams wait to be accepted, Open waits, as long as ctx allows.
	Open(ctx context.Context) (Stream, error)
	// Accept waits for the peer's next stream.
	Accept(ctx context.Context) (Stream, error)
	// OnOpen sets the function that is called with each stream of the peer until the
	// session ends: with new streams, and with those that were not accepted yet. It
	// replaces Accept. do must not block: other streams of the session would wait. A
	// carrier without an OnOpen of its own can use AcceptEach.
	OnOpen(do func(Stream))
	// Admit tells the session's listener that the peer has proved its identity. Until
	// then the session counts against the limits of the listener's Gate. It is closed
	// when it takes too long, when the peer opens a stream or when the peer sends more
	// than a login needs. On the side that dialled, Admit does nothing.
	Admit()
	// Binding is a value of 32 bytes that only the two ends of this session can
	// compute (RFC 9266: the TLS exporter). It binds a proof of identity to the
	// session.
	Binding() []byte
	// Ping measures one round trip to the peer's session layer.
	Ping(ctx context.Context) (time.Duration, error)
	// RemoteAddr is the peer's network address.
	RemoteAddr() net.Addr
	// Done is closed when the session has ended, for any reason.
	Done() <-chan struct{}
	// Err gives the reason for the end of the session; nil while it lives.
	Err() error
	// NumStreams counts streams that have not ended.
	NumStreams() int
	// Close ends the session and resets its streams. It may be repeated.
	Close() error
}

// Stream is one multiplexed byte stream. Read and write sides are independent. It
// passes golang.org/x/net/nettest. Closing twice, or while another goroutine reads or
// writes, is safe; Close and Reset wake blocked calls. If a Write has failed with an
// error other than ErrStopped or a deadline, reads fail too, after they have returned
// the received data.
type Stream interface {
	net.Conn
	// CloseWrite ends the write side: the peer reads the data that was written, and
	// then io.EOF. The read side goes on.
	CloseWrite() error
	// Reset ends both sides at once. The peer's reads and writes fail with ErrReset,
	// and data that was not read is lost.
	Reset() error
	// ResetInOrder is Reset after the written data: the peer reads this data first and
	// then gets ErrReset, and its writes fail at once. Use it when the source of the
	// data has failed: Reset would destroy the data that came before the failure.
	ResetInOrder() error
	// OnRead makes do be called once, in a goroutine of its own, as soon as a Read
	// would not wait: there is data, or the end, or the stream or its session has
	// failed. Until then nobody else may read the stream. now makes the call happen
	// at once, if it has not happened yet.
	OnRead(do func()) (now func())
	// OnReset makes do be called once, in a goroutine of its own, as soon as nobody
	// waits for this side's data any more: the stream was reset, the peer reads no more,
	// or the session has ended. What the peer has written does not matter, so the
	// stream may be read meanwhile; it must not be spliced before stop. After stop do is
	// not called, unless the call had begun.
	OnReset(do func()) (stop func())
}

// Errors of sessions and streams. Test for them with errors.Is.
var (
	// ErrSessionClosed: the session and all its streams have ended.
	ErrSessionClosed = errors.New("transport: session is closed")
	// ErrReset: the peer or this side has reset the stream.
	ErrReset = errors.New("transport: stream was reset")
	// ErrStopped, which is an ErrReset: the peer closed its stream before it had read
	// all data. The data that the peer wrote can still be read.
	ErrStopped = fmt.Errorf("%w: the peer reads no more", ErrReset)
)
