//go:build unix

package transport

import (
	"errors"
	"io"
	"sync"
	"time"
)

func spliceLanes(a, b *Lane, count Count) (aToB, bToA int64, err error) {
	var once sync.Once
	oneWay := func(from, to *Lane, counted func(int)) int64 {
		m := laneMove{from: from, to: to, brake: count.Brake, counted: counted}
		failed := m.run()
		if failed == nil {
			failed = to.CloseWrite()
		}
		if failed != nil {
			once.Do(func() { err = failed })
			_, _ = from.Reset(), to.Reset()
		}
		return m.moved
	}
	var back sync.WaitGroup
	back.Go(func() { bToA = oneWay(b, a, count.BToA) })
	aToB = oneWay(a, b, count.AToB)
	back.Wait()
	_, _ = a.Close(), b.Close()
	return aToB, bToA, err
}

// laneMove is one direction of two lanes that are joined.
type laneMove struct {
	from, to *Lane
	brake    *Brake
	counted  func(n int)
	moved    int64
}

// handed counts n bytes that the other lane has taken, and waits as long as the brake
// demands.
func (m *laneMove) handed(n int) error {
	m.moved += int64(n)
	if m.counted != nil {
		m.counted(n)
	}
	if !m.brake.braking() {
		return nil
	}
	turn := m.brake.pass(n)
	for {
		wait := m.brake.wait(turn)
		if wait == 0 {
			return nil
		}
		time.Sleep(wait)
		for _, l := range []*Lane{m.from, m.to} {
			if err := l.raw.Control(func(uintptr) {}); err != nil {
				return err // it was reset meanwhile
			}
		}
	}
}

// copy moves the bytes through this process.
func (m *laneMove) copy() error {
	for {
		if err := m.from.AwaitRead(); err != nil { // without a buffer
			return err
		}
		seg := newSegment(maxBody)
		n, err := m.from.ReadNow(seg.buf[:min(len(seg.buf), m.brake.most())])
		if n > 0 {
			_, err = m.to.Write(seg.buf[:n])
		}
		seg.free()
		if err == nil && n > 0 {
			err = m.handed(n)
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
}
