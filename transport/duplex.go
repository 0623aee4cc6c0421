package transport

import "net"

// Duplex is an end that Splice joins: a Stream, a *net.TCPConn, or anything else whose
// two sides end separately. The interfaces below are for ends that can do more. Splice,
// Count and Brake use nothing else of an end.
type Duplex interface {
	net.Conn
	CloseWrite() error
}

// Prompt is a Duplex whose bytes can be moved without a wait. Splice needs no goroutine
// between two Prompts.
type Prompt interface {
	Duplex
	// ReadNow reads bytes that have come already. It returns 0 and no error when there
	// are none. If b is empty it returns only the error of the end, if there is one
	// other than io.EOF.
	ReadNow(b []byte) (int, error)
	// WriteNow writes as many bytes of the pieces as there is room for, in the order
	// of the pieces, and keeps none of the pieces. Without pieces it returns only the
	// error of the end, if there is one.
	WriteNow(pieces [][]byte) (int, error)
	// Watch sets two hooks. onRead is called when ReadNow has returned nothing and may
	// now return bytes or an error; onRoom is the same for WriteNow. The hooks must
	// not block. They may be called when there is nothing to do. The caller of a hook
	// holds no lock that ReadNow or WriteNow takes. nil keeps the present hook.
	Watch(onRead, onRoom func())
}

// ReadStopper is a Duplex that can tell its peer that it reads no more. Bytes that come
// after that are discarded, and the peer's writes fail with ErrStopped.
type ReadStopper interface{ StopRead() error }

// pieceSource is an end whose bytes come in segments that can be passed on without a
// copy. The carriers of this package implement it; other carriers have Prompt.
type pieceSource interface {
	Duplex
	// takeAtMost returns the first waiting piece, or its first n bytes. It returns nil
	// if no piece waits, or io.EOF. The caller owns the piece.
	takeAtMost(n int) (*segment, error)
	// consumed lets the peer send n bytes more. Frames to write for that go to l.
	consumed(n int, l *later)
	// unreadable is the error that a read would return, apart from io.EOF.
	unreadable() error
	// watch sets the hooks that are not nil. unwatch removes the hooks.
	watch(onRead, onRoom hook)
	unwatch(onRead, onRoom hook)
}

// pieceSink is an end that takes segments without a copy.
type pieceSink interface {
	Duplex
	// offer gives the segment to the end, if there is room for it. Otherwise offer
	// returns false, and onRoom is called when there may be room. Frames to write go
	// to l.
	offer(seg *segment, l *later) (bool, error)
	// waitRoom waits until at least this many bytes can be offered, and returns how
	// many can be. If now is set it does not wait. offerAll then gives all the
	// segments to the end.
	waitRoom(least int, now bool) (int, error)
	offerAll(all *segments) error
	// broken is the error that a write would return.
	broken() error
	watch(onRead, onRoom hook)
	unwatch(onRead, onRoom hook)
}

// hook is called when an end can be read or written again, or has failed. The goroutines
// of a session call wake, so it must not block. Frames that it wants to write go to l.
type hook interface{ wake(l *later) }
