package agent

import (
	"context"
	"errors"
	"time"
)

const (
	// When an Open has had no answer for doubtAfter, the agent pings the forwarder and
	// waits for doubtAfter once more. A service may be slow to answer. But if the
	// forwarder does not even answer a ping, no connection should wait for it.
	doubtAfter = 300 * time.Millisecond
	// leaveAfter is how much longer the forwarder may be silent before the agent
	// replaces the session. Live streams through the forwarder stay open: it may be
	// busy and not dead.
	leaveAfter = 2 * time.Second
)

// errSilent is the error of a stream that was given up.
var errSilent = errors.New("the forwarder does not answer")

// doubt is called for a stream whose Open has no answer. If the forwarder does not
// answer a ping either, doubt gives the stream up, and the caller opens it over
// another session. If the agent has a session that was not tried, this happens at
// once. Otherwise it happens when the agent leaves for another forwarder. If there is
// no other forwarder to try, doubt does not give the stream up: all forwarders may
// just be slow.
func (s *session) doubt(other func() bool, giveUp func()) {
	if s.answers(doubtAfter) {
		return
	}
	s.a.sessions.doubt(s)
	if other() {
		giveUp()
	}
	if s.abandon() {
		giveUp()
	}
}

// abandon leaves the session if its forwarder stays silent and another forwarder is
// free. It tells whether it left.
func (s *session) abandon() bool {
	if s.answers(leaveAfter) {
		s.a.sessions.trust(s)
		return false
	}
	if fresh, _ := s.a.roster.fresh(); !fresh {
		return false
	}
	s.goElsewhere("the forwarder does not answer; connecting to another one")
	return true
}

// answers tells whether the forwarder answers a ping.
func (s *session) answers(within time.Duration) bool {
	ctx, cancel := context.WithTimeout(s.a.ctx, within)
	defer cancel()
	_, err := s.link.Ping(ctx)
	return err == nil
}

// goElsewhere leaves the session: the agent makes another one in its place, and the
// session ends when it has no more streams.
func (s *session) goElsewhere(why string, args ...any) {
	s.leave.Do(func() {
		s.log.Info(why, args...)
		s.a.sessions.leave(s)
		close(s.left)
	})
}

// missed checks the sessions at nodes that are no longer in the list of forwarders.
// Such a forwarder has drained, has lost the directory, or hangs without having closed
// its connections, and others noticed that before this agent.
func (a *Agent) missed(told []string) {
	for _, s := range a.sessions.elsewhere(told) {
		a.start(func() { s.abandon() })
	}
}
