package wait

import (
	"os"
	"sync"
	"time"
)

// Deadline ends waits on a condition at a given time. It is guarded by the condition's
// lock. The zero Deadline never passes and has no timer.
type Deadline struct {
	timer  *time.Timer
	set    uint32 // counts calls of Move, so that a late timer does nothing
	passed bool
}

// Move sets the deadline to t; the zero time removes it. The condition is woken when
// the deadline passes. The caller holds the lock.
func (d *Deadline) Move(t time.Time, cond *sync.Cond) {
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

// Stop removes the deadline for good. The caller holds the lock.
func (d *Deadline) Stop() {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	d.set++
}

// Passed reports whether the deadline has passed. The caller holds the lock.
func (d *Deadline) Passed() bool { return d.passed }

// Err is os.ErrDeadlineExceeded after the deadline has passed. The caller holds the
// lock.
func (d *Deadline) Err() error {
	if d.passed {
		return os.ErrDeadlineExceeded
	}
	return nil
}
