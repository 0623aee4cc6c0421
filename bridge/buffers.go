package bridge

import (
	"sync"

	"google.golang.org/grpc/mem"
)

// The pools of buffers for sent and received frames. All streams use them.
var (
	smallBuffers = sync.Pool{New: func() any { b := make([]byte, 0, smallFrame); return &b }}
	partBuffers  = sync.Pool{New: func() any { b := make([]byte, 0, partSize); return &b }}
)

// frameBuffer gives an empty buffer for n bytes, or for a part of them.
func frameBuffer(n int) *[]byte {
	if n <= smallFrame {
		return smallBuffers.Get().(*[]byte)
	}
	return partBuffers.Get().(*[]byte)
}

// recycle puts a buffer of frameBuffer back into its pool.
func recycle(b *[]byte) {
	*b = (*b)[:0]
	switch cap(*b) {
	case smallFrame:
		smallBuffers.Put(b)
	case partSize:
		partBuffers.Put(b)
	}
}

// received is the pool for the buffers that gRPC reads into. gRPC's own pool clears 16
// KiB for each received frame, although the frame then overwrites all of it.
type received struct{}

var _ mem.BufferPool = received{}

func (received) Get(n int) *[]byte {
	if n > partSize {
		b := make([]byte, n)
		return &b
	}
	b := frameBuffer(n)
	*b = (*b)[:n]
	return b
}

func (received) Put(b *[]byte) { recycle(b) }
