package transport

import (
	"fmt"
	"sync"
	"time"
)

// heartbeats probes sessions and notices dead ones. All sessions of a listener share
// one heartbeats, which handles many sessions at a time: ten thousand idle sessions
// then cost a few dozen short bursts a second and one timer, and the answers of the
// peers arrive together. A timer for each session would wake the process for each
// session, and waking it costs several times as much as the work itself.
type heartbeats struct {
	step  time.Duration
	began time.Time

	mu    sync.Mutex
	slots [beatSlots]*muxSession // the first session that is due at each step
	step0 int64                  // the last step that was handled
	count int
	timer *time.Timer // fires at the next step with a session; nil before the first session
	next  int64       // the step that the timer is set to; 0: the timer is not set
}

// beatSteps is the number of steps in the interval between two probes. A session is
// due within one interval. The other half of the slots is room for a timer that fires
// late: it is hardly ever a whole interval late.
const (
	beatSteps = 64
	beatSlots = 2 * beatSteps
)

// beating is a session's place among the heartbeats, guarded by their lock.
type beating struct {
	slot       int64 // the step at which the session is due; 0: it has no place
	prev, next *muxSession
}

func newHeartbeats(every time.Duration) *heartbeats {
	return &heartbeats{step: max(every/beatSteps, time.Millisecond), began: time.Now()}
}

// now is the present step.
func (h *heartbeats) now() int64 { return int64(time.Since(h.began) / h.step) }

// add makes the session due after the given time, or up to one step later.
func (h *heartbeats) add(s *muxSession, in time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.now()
	if h.count == 0 {
		h.step0 = now
	}
	// A session too far ahead for the slots becomes due early: beat then adds it
	// again. Without the bound it would land in a wrong slot.
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

// remove takes the session out, if it has a place.
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

// set sets the timer to a step. The caller holds the lock.
func (h *heartbeats) set(step int64) {
	h.next = step
	in := h.step*time.Duration(step) - time.Since(h.began)
	if h.timer == nil {
		h.timer = time.AfterFunc(in, h.beat)
	} else {
		h.timer.Reset(in)
	}
}

// beat probes or ends the sessions that are due.
func (h *heartbeats) beat() {
	for _, s := range h.due() {
		if in := s.beat(h.step); in > 0 {
			h.add(s, in)
		}
	}
}

// due removes and returns the sessions that are due, and sets the timer for the rest.
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

// beat probes the session if it has been quiet, and ends it if it is dead. It returns
// the time until the next beat; 0 means never. early is the length of one step. A beat
// can be one step late, so beat ends a session up to one step too early, never too
// late.
func (s *muxSession) beat(early time.Duration) time.Duration {
	quiet := time.Since(s.began) - time.Duration(s.heard.Load())
	if quiet+early >= s.config.DeadAfter {
		// In a goroutine, because end closes the connection and calls hooks.
		go s.end(fmt.Errorf("%w: nothing was received for %s", ErrSessionClosed, s.config.DeadAfter), byeDead)
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
	return max(min(next, s.config.DeadAfter-quiet-2*early), 1) // 1 is the next step
}
