package bridge

import (
	"io"
	"sync"
	"testing"
	"time"
)

// One end reads a flood, for which its reader sends grants, and writes small pieces at
// the same time. A Write that waits while a grant is being sent must be woken when the
// grant is sent: the peer sends no grant that would wake it.
func TestLittleWritesBesideAFlood(t *testing.T) {
	const writes = 10_000
	two := startTwo(t, nil)
	var running sync.WaitGroup
	for range 4 {
		p := two.open(t)
		late := time.AfterFunc(20*time.Second, func() { _, _ = p.opener.Reset(), p.acceptor.Reset() })
		defer late.Stop()
		written := make(chan struct{})
		running.Go(func() {
			defer close(written)
			for i := range writes {
				if _, err := p.opener.Write([]byte{1}); err != nil {
					t.Errorf("write %d: %v", i, err)
					return
				}
				time.Sleep(time.Microsecond) // so that grants are sent in between
			}
			_ = p.opener.CloseWrite()
		})
		running.Go(func() {
			if n, err := io.Copy(io.Discard, p.acceptor); n != writes || err != nil {
				t.Errorf("read %d: %v", n, err)
			}
		})
		running.Go(func() {
			flood := make([]byte, 32<<10)
			for {
				select {
				case <-written:
					_ = p.acceptor.CloseWrite()
					return
				default:
				}
				if _, err := p.acceptor.Write(flood); err != nil {
					t.Errorf("flood: %v", err)
					return
				}
			}
		})
		running.Go(func() {
			if _, err := io.Copy(io.Discard, p.opener); err != nil {
				t.Errorf("read the flood: %v", err)
			}
		})
	}
	running.Wait()
}
