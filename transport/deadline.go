package transport

import (
	"os"
	"sync"
	"time"
)

// deadline ends waits on a condition at a given time. Its fields are guarded by the
// condition's lock. The zero deadline never passes and has no timer.
type deadline struct {
	timer  *time.Timer
	set    uint32 // counts calls of move, so that a late timer does nothing
	passed bool
}

// move sets the deadline to t; the zero time removes it. The condition is woken when
// the deadline passes. The caller holds the lock.
func (d *deadline) move(t time.Time, cond *sync.Cond) {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	d.set++
	d.passed = false
	if t.IsZero() {
		return
	}
	wait := time.Until(t)
	if wait <= 0 {
		d.passed = true
		cond.Broadcast()
		return
	}
	set := d.set
	d.timer = time.AfterFunc(wait, func() {
		cond.L.Lock()
		defer cond.L.Unlock()
		if d.set == set {
			d.passed = true
			cond.Broadcast()
		}
	})
}

// stop removes the deadline for good. The caller holds the lock.
func (d *deadline) stop() {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	d.set++
}

// err is os.ErrDeadlineExceeded after the deadline has passed. The caller holds the
// lock.
func (d *deadline) err() error {
	if d.passed {
		return os.ErrDeadlineExceeded
	}
	return nil
}
