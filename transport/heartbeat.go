package transport

import (
	"fmt"
	"sync"
	"time"
)

// heartbeats has sessions probed and watched. Those of a listener share one, and
// are seen to many at a time: ten thousand idle sessions are then a few dozen short
// bursts a second, one timer, and peers whose answers come together. A timer for
// each would wake the process for each, which costs several times what there is to
// do.
type heartbeats struct {
	step  time.Duration
	began time.Time

	mu    sync.Mutex
	slots [beatSlots]*muxSession // the first of those that are due at a step
	step0 int64                  // the step that was made last
	count int
	timer *time.Timer // makes the next step that has somebody; nil before the first
	next  int64       // what the timer is set to; 0: it is not set
}

// beatSteps is how many steps a probe's interval has. Sessions are due within it,
// and it has hardly passed when they are seen to, which half of the slots are for.
const (
	beatSteps = 64
	beatSlots = 2 * beatSteps
)

// beating is a session's place among the heartbeats, guarded by their lock.
type beating struct {
	slot       int64 // the step at which it is due; 0: it has no place
	prev, next *muxSession
}

func newHeartbeats(every time.Duration) *heartbeats {
	return &heartbeats{step: max(every/beatSteps, time.Millisecond), began: time.Now()}
}

// now is the step that has come.
func (h *heartbeats) now() int64 { return int64(time.Since(h.began) / h.step) }

// add has the session seen to when the time has passed, or a step later.
func (h *heartbeats) add(s *muxSession, in time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.now()
	if h.count == 0 {
		h.step0 = now
	}
	// Rather early than never: what is too early is added again.
	b := &s.beating
	b.slot = min(now+int64(in/h.step)+1, h.step0+beatSlots)
	first := &h.slots[b.slot%beatSlots]
	if b.next = *first; b.next != nil {
		b.next.beating.prev = s
	}
	*first = s
	h.count++
	if h.next == 0 || b.slot < h.next {
		h.set(b.slot)
	}
}

// remove takes the session out, if it is there.
func (h *heartbeats) remove(s *muxSession) {
	h.mu.Lock()
	defer h.mu.Unlock()
	b := &s.beating
	if b.slot == 0 {
		return
	}
	if b.next != nil {
		b.next.beating.prev = b.prev
	}
	if b.prev != nil {
		b.prev.beating.next = b.next
	} else {
		h.slots[b.slot%beatSlots] = b.next
	}
	*b = beating{}
	h.count--
	if h.count == 0 {
		h.timer.Stop()
		h.next = 0
	}
}

// set sets the timer. The lock is held.
func (h *heartbeats) set(step int64) {
	h.next = step
	in := h.step*time.Duration(step) - time.Since(h.began)
	if h.timer == nil {
		h.timer = time.AfterFunc(in, h.beat)
	} else {
		h.timer.Reset(in)
	}
}

// beat sees to the sessions that are due.
func (h *heartbeats) beat() {
	for _, s := range h.due() {
		if in := s.beat(h.step); in > 0 {
			h.add(s, in)
		}
	}
}

// due takes out the sessions that are due, and sets the timer for the others.
func (h *heartbeats) due() (due []*muxSession) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := min(h.now(), h.step0+beatSlots)
	for ; h.step0 < now; h.step0++ {
		first := &h.slots[(h.step0+1)%beatSlots]
		for s := *first; s != nil; h.count-- {
			due = append(due, s)
			next := s.beating.next
			s.beating = beating{}
			s = next
		}
		*first = nil
	}
	h.next = 0
	if h.count == 0 {
		return due
	}
	step := h.step0 + 1
	for h.slots[step%beatSlots] == nil {
		step++
	}
	h.set(step)
	return due
}

// beat probes the session if it has been quiet and ends it when it is dead. It tells
// when to come again; 0 is never. It may come as much too late as early is.
func (s *muxSession) beat(early time.Duration) time.Duration {
	quiet := time.Since(s.began) - time.Duration(s.heard.Load())
	if quiet+early >= s.config.DeadAfter {
		// In a goroutine, because it closes the connection and calls who waits.
		go s.end(fmt.Errorf("%w: nothing came for %s", ErrSessionClosed, s.config.DeadAfter), byeDead)
		return 0
	}
	s.mu.Lock()
	defer s.release(nil)
	if s.err != nil {
		return 0
	}
	next := s.config.PingEvery - quiet
	if next <= 0 {
		s.probe, s.probing = s.pingID(), true
		s.send(appendEcho(s.urgent, framePing, s.probe))
		next = s.config.PingEvery
	}
	return max(min(next, s.config.DeadAfter-quiet-2*early), 1) // with the next step at the earliest
}
