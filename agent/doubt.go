package agent

import (
	"context"
	"errors"
	"time"
)

const (
	// Without an answer to an Open for doubtAfter it is asked whether the forwarder
	// is there, for as long again. A service may take its time to answer; a forwarder
	// that does not even answer a ping keeps nobody waiting.
	doubtAfter = 300 * time.Millisecond
	// leaveAfter is how much longer a forwarder may be silent before the agent goes
	// elsewhere. Streams through it stay: it may be busy, and not gone.
	leaveAfter = 2 * time.Second
)

// errSilent is what becomes of a stream that was given up.
var errSilent = errors.New("the forwarder does not answer")

// doubt is for a stream whose Open is not answered. When the forwarder is silent
// too the stream is given up, to be opened over another session: over one that
// there is and was not tried, at once, and otherwise over one that the agent then
// goes for. The last that could be tried is not given up: all may just be slow.
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

// abandon goes elsewhere if the forwarder stays silent and there is somewhere to
// go. It tells whether it did.
func (s *session) abandon() bool {
	if s.answers(leaveAfter) {
		s.a.sessions.trust(s)
		return false
	}
	if fresh, _ := s.a.roster.fresh(); !fresh {
		return false
	}
	s.goElsewhere("the forwarder does not answer; going elsewhere")
	return true
}

// answers tells whether the forwarder answers a ping.
func (s *session) answers(within time.Duration) bool {
	ctx, cancel := context.WithTimeout(s.a.ctx, within)
	defer cancel()
	_, err := s.link.Ping(ctx)
	return err == nil
}

// goElsewhere leaves the session: another takes its place, and it ends when it
// carries nothing any more.
func (s *session) goElsewhere(why string, args ...any) {
	s.leave.Do(func() {
		s.log.Info(why, args...)
		s.a.sessions.leave(s)
		close(s.left)
	})
}

// missed looks after the sessions whose nodes are not among those told of any
// more. Their forwarders have drained, have lost sight of the directory, or hang
// without having closed a connection, which others noticed before this agent.
func (a *Agent) missed(told []string) {
	for _, s := range a.sessions.elsewhere(told) {
		a.start(func() { s.abandon() })
	}
}
