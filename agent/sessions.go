package agent

import (
	"slices"
	"sync"
)

// sessions holds the agent's sessions, the oldest first.
type sessions struct {
	mu      sync.Mutex
	all     []*session
	changed chan struct{} // closed and replaced at each change
}

func newSessions() *sessions { return &sessions{changed: make(chan struct{})} }

// note makes a change and tells whoever waits for one.
func (ss *sessions) note(change func()) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	change()
	close(ss.changed)
	ss.changed = make(chan struct{})
}

func (ss *sessions) add(s *session) { ss.note(func() { ss.all = append(ss.all, s) }) }

func (ss *sessions) remove(s *session) {
	ss.note(func() { ss.all = slices.DeleteFunc(ss.all, func(other *session) bool { return other == s }) })
}

// leave marks a session that takes no new streams.
func (ss *sessions) leave(s *session) { ss.note(func() { s.leaving = true }) }

// doubt marks a session whose forwarder does not answer: other sessions are tried
// before it.
func (ss *sessions) doubt(s *session) { ss.note(func() { s.doubted = true }) }

// trust ends the doubt: the forwarder has answered.
func (ss *sessions) trust(s *session) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	s.doubted = false
}

// pick returns the session for a new stream: the oldest that takes streams and was not
// tried, and one in doubt only if there is no other. If pick returns nil, leaving tells
// whether the agent is leaving a session; a new one will then take its place.
func (ss *sessions) pick(tried []*session) (best *session, leaving bool, changed <-chan struct{}) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	for _, s := range ss.all {
		switch {
		case s.leaving:
			leaving = true
		case slices.Contains(tried, s):
		case best == nil, best.doubted && !s.doubted:
			best = s
		}
	}
	return best, leaving, ss.changed
}

// other tells whether pick would return a session that is not in doubt.
func (ss *sessions) other(tried []*session) bool {
	s, _, _ := ss.pick(tried)
	ss.mu.Lock()
	defer ss.mu.Unlock()
	return s != nil && !s.doubted
}

// staying counts the sessions that the agent is not leaving, except one.
func (ss *sessions) staying(but *session) (n int) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	for _, s := range ss.all {
		if s != but && !s.leaving {
			n++
		}
	}
	return n
}

// nodes returns the nodes of the sessions that the agent is not leaving.
func (ss *sessions) nodes() (names []string) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	for _, s := range ss.all {
		if !s.leaving {
			names = append(names, s.node)
		}
	}
	return names
}

// elsewhere returns the sessions at other nodes than these that the agent is not leaving.
func (ss *sessions) elsewhere(nodes []string) (some []*session) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	for _, s := range ss.all {
		if !s.leaving && !slices.Contains(nodes, s.node) {
			some = append(some, s)
		}
	}
	return some
}

// isLeaving tells whether the session is being left.
func (ss *sessions) isLeaving(s *session) bool {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	return s.leaving
}
