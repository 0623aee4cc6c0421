// Package transport gives sessions between an agent and a forwarder, and
// streams inside them, over whatever carries bytes.
//
// Its duty is to make every carrier look the same: TLS 1.3 over TCP with a
// multiplexer, and memory for tests; transport/transporttest is the one suite.
//
// Another carrier has a [Session] and a [Stream], and nothing depends on their
// types. It may take the multiplexer over a connection of its own ([Multiplex]), and
// the gate for strangers ([Gate]). Where its streams are a [Prompt], a [Splice] of
// them takes no goroutine; where they are a [ReadStopper], a writer learns at once
// that nobody reads. [Carriers] finds it by the scheme of an address.
//
// Its limit: it does not know who the peer is or what the bytes mean. Identity
// is proved in package wire's messages, bound to [Session.Binding].
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
	// once, and the peer learns of the stream with the first of it or with a
	// close. It fails when the session has ended (ErrSessionClosed), and waits,
	// as long as ctx allows, when too many opened streams wait to be accepted.
	Open(ctx context.Context) (Stream, error)
	// Accept waits for the peer's next stream.
	Accept(ctx context.Context) (Stream, error)
	// OnOpen has do called with each stream that the peer opens, from now on and of
	// those that were not accepted yet, until the session ends. It replaces Accept.
	// do must not block: other streams of the session wait for it. A carrier without
	// a way of its own has AcceptEach.
	OnOpen(do func(Stream))
	// Admit tells the listener that the session came from that the peer has proved
	// who it is. Until then the session counts against the caps of the listener's
	// Gate and is closed when it takes too long, when the peer opens a stream or when
	// it sends more than a login needs. It does nothing on the side that dialled.
	Admit()
	// Binding is a value of 32 bytes that both ends of this session and nobody
	// else compute (RFC 9266: the TLS exporter), to bind a proof of identity to it.
	Binding() []byte
	// Ping measures one round trip to the peer's session layer.
	Ping(ctx context.Context) (time.Duration, error)
	// RemoteAddr is the peer's network address.
	RemoteAddr() net.Addr
	// Done is closed when the session has ended, for whatever reason.
	Done() <-chan struct{}
	// Err tells why the session ended; nil while it lives.
	Err() error
	// NumStreams counts streams that have not ended.
	NumStreams() int
	// Close ends the session and resets its streams. It is safe to repeat.
	Close() error
}

// Stream is one multiplexed byte stream. Read and write sides are independent.
// It passes golang.org/x/net/nettest. Closing twice, or while another goroutine
// reads or writes, is safe; Close and Reset wake blocked calls. Where a Write has
// failed for another reason than ErrStopped and deadlines, reads fail too, behind
// what has come.
type Stream interface {
	net.Conn
	// CloseWrite ends the write side: the peer reads what was written, then
	// io.EOF. The read side goes on.
	CloseWrite() error
	// Reset ends both sides at once. The peer's reads and writes fail with
	// ErrReset; what was not read is lost.
	Reset() error
	// ResetInOrder is Reset behind what was written: the peer reads that first and
	// then ErrReset, and its writes fail at once. It is for an end whose own source has
	// failed, where Reset would destroy what came before that.
	ResetInOrder() error
	// OnRead has do called once, in a goroutine of its own, as soon as a Read would
	// not wait: there is data, or the end, or the stream or its session has failed.
	// Until then nobody else may read the stream. now has it called at once, if it
	// was not.
	OnRead(do func()) (now func())
}

// Errors of sessions and streams; test with errors.Is.
var (
	// ErrSessionClosed: the session has ended, and with it its streams.
	ErrSessionClosed = errors.New("transport: session is closed")
	// ErrReset: the peer, or this side, reset the stream.
	ErrReset = errors.New("transport: stream was reset")
	// ErrStopped, which is an ErrReset: the peer closed its stream before it had
	// read all. What it wrote can still be read.
	ErrStopped = fmt.Errorf("%w: the peer reads no more", ErrReset)
)
