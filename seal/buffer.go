package seal

import "sync"

// buffer is a pooled piece of memory with the bytes from start to end in use.
type buffer struct {
	b          []byte
	start, end int
	large      bool
}

const (
	smallBuffer = 2 << 10
	batch       = 4 // how many records are written or read at once
	largeBuffer = batch*maxRecord + 2*overhead
)

var smallBuffers, largeBuffers sync.Pool

// newBuffer gives an empty buffer with room for n bytes, largeBuffer at most.
func newBuffer(n int) *buffer {
	pool, size := &smallBuffers, smallBuffer
	if n > smallBuffer {
		pool, size = &largeBuffers, largeBuffer
	}
	if b, ok := pool.Get().(*buffer); ok {
		return b
	}
	return &buffer{b: make([]byte, size), large: n > smallBuffer}
}

func (b *buffer) free() {
	b.start, b.end = 0, 0
	if b.large {
		largeBuffers.Put(b)
	} else {
		smallBuffers.Put(b)
	}
}

func (b *buffer) bytes() []byte { return b.b[b.start:b.end] }

// move gives a buffer with the same bytes at its front and room for n bytes in all.
func (b *buffer) move(n int) *buffer {
	if n <= len(b.b) {
		b.end = copy(b.b, b.bytes())
		b.start = 0
		return b
	}
	to := newBuffer(n)
	to.end = copy(to.b, b.bytes())
	b.free()
	return to
}
