package transport

import "net"

// Duplex is an end that Splice joins: a Stream, a *net.TCPConn, or anything else
// with two sides that end apart. The interfaces below are for ends that can do
// more; nothing else about an end matters to Splice, its Count and its Brake.
type Duplex interface {
	net.Conn
	CloseWrite() error
}

// Prompt is a Duplex whose bytes can be moved without waiting for them. Splice
// needs no goroutine between two of them.
type Prompt interface {
	Duplex
	// ReadNow is Read for what has come already. It gives 0 and no error when
	// nothing has. With no room in b it gives the error there is, if any, apart from
	// the end.
	ReadNow(b []byte) (int, error)
	// WriteNow takes what there is room for from the pieces, in their order, and
	// keeps none of them. Without pieces it gives the error there is, if any.
	WriteNow(pieces [][]byte) (int, error)
	// Watch has onRead called when ReadNow, having given nothing, may give
	// something or an error, and onRoom for WriteNow. They do not block, may be
	// called when there is nothing, and are called with no lock held that either
	// takes. nil leaves the one there was.
	Watch(onRead, onRoom func())
}

// ReadStopper is a Duplex that can let its peer know that it reads no more: what
// comes from then on is thrown away, and the peer's writes fail with ErrStopped.
type ReadStopper interface{ StopRead() error }

// pieceSource is an end whose bytes come in segments that can go on as they are.
// The carriers of this package have it; others have Prompt.
type pieceSource interface {
	Duplex
	// takeAtMost gives the first piece that waits, at most n bytes of it, nil when
	// none does, or io.EOF. The caller owns it.
	takeAtMost(n int) (*segment, error)
	// consumed lets the peer send n bytes more; what is to be written for that goes
	// to l.
	consumed(n int, l *later)
	// unreadable is why nothing can be read, apart from the end.
	unreadable() error
	// watch sets the hooks that are not nil, and unwatch takes them off.
	watch(onRead, onRoom hook)
	unwatch(onRead, onRoom hook)
}

// pieceSink is an end that takes segments as they are.
type pieceSink interface {
	Duplex
	// offer gives the end the segment, if there is room for it. If there is none it
	// says so, and calls onRoom when there may be. What is to be written goes to l.
	offer(seg *segment, l *later) (bool, error)
	// waitRoom waits until at least so much can be offered, or not at all when now is
	// set, and tells how much it is. offerAll then gives all the segments.
	waitRoom(least int, now bool) (int, error)
	offerAll(all *segments) error
	// broken is why nothing can be written.
	broken() error
	watch(onRead, onRoom hook)
	unwatch(onRead, onRoom hook)
}

// hook is told when an end can be read or written again, or has failed. wake is
// called by a session's goroutines and must not block; what it gives to write goes
// to l.
type hook interface{ wake(l *later) }
