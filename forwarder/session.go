package forwarder

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/tunnox-net/tunnox/directory"
	"github.com/tunnox-net/tunnox/transport"
	"github.com/tunnox-net/tunnox/wire"
	"github.com/tunnox-net/tunnox/wire/wirepb"
)

const (
	writeTimeout = 10 * time.Second // an agent that does not read its control stream is gone
	readTimeout  = 10 * time.Second // for the rest of a message that has begun
	farewellTime = time.Second / 2  // to read why it is over, before the link is cut
)

// errPanic ends a session whose message could not be handled.
var errPanic = errors.New("a panic")

// session is one agent's proved link. While nothing comes from the agent no goroutine
// serves it. One does for each control message, one after the other, and one for
// each stream until its bytes flow; another writes configurations, while there is
// one to write.
type session struct {
	f       *Forwarder
	log     *slog.Logger
	link    transport.Session
	control transport.Stream

	// Set at login, before the session is in the routes.
	id       string
	client   int64
	instance string
	key      []byte // the public key that the agent proved to hold
	version  string // of the agent's program
	carries  carries
	since    time.Time
	epoch    directory.Epoch
	running  []byte // digest of the configuration the agent says it runs

	// Owned by login and then by whoever assigns, one at a time.
	offered []*wirepb.Forwarder        // where the agent was told that it may go
	sent    map[int64]*wirepb.Listener // what it was told to listen on; nil before the first
	lacking []int64                    // mappings that it should listen for and does not carry

	opening atomic.Int32 // streams waiting for Opened

	commands chan struct{} // a slot for each command without a result

	complaints *rate.Limiter // of the agent, in the log; nil before the first, touched by attend only
	wishes     *rate.Limiter // of commands; the same

	writeMu sync.Mutex // one control message at a time

	mu        sync.Mutex
	wrong     time.Time // since when the agent's configuration is out of date; zero: nobody measures
	pushes    []push    // configurations sent and not yet acknowledged
	ack       int64     // the newest that was acknowledged
	stale     bool      // the agent's configuration is to be looked at
	welcomed  bool      // it may be told
	wake      func()    // has the next control message waited for no longer; nil before serve
	assigning bool      // somebody is at it
	whole     bool      // the next assignment is a whole one

	renewAt time.Time // when the directory is to be told again of the session
	refusal *wire.Refusal
}

// push is a configuration on its way to the agent.
type push struct {
	version uint64
	at      time.Time // when its cause was decided
}

// serve begins to serve a welcomed session. It has a task of the forwarder from then
// on, until finish gives it back.
func (s *session) serve() {
	s.f.tasks.Add(1) // this runs in a task, so the number is not 0 and Close waits
	s.mu.Lock()
	s.welcomed = true
	s.mu.Unlock()
	s.link.OnOpen(s.take)
	s.configure(time.Time{})
	s.listen()
}

// listen has the agent's next control message attended to. There is no limit to how
// long that takes: the transport notices a peer from which no byte comes any more.
func (s *session) listen() {
	s.control.SetReadDeadline(time.Time{})
	s.mu.Lock()
	s.wake = s.control.OnRead(s.attend)
	over := s.refusal != nil
	s.mu.Unlock()
	if over {
		s.wake() // end may have come just before
	}
}

// attend takes a control message, which has begun to come, or ends the session.
func (s *session) attend() {
	err := errPanic
	defer func() {
		if err != nil {
			s.finish(err)
		} else {
			s.listen()
		}
	}()
	defer s.f.survive()
	err = s.read()
}

// read takes one control message.
func (s *session) read() error {
	s.control.SetReadDeadline(time.Now().Add(readTimeout))
	if refusal := s.reason(); refusal != nil { // end may have come just before the deadline above
		return refusal
	}
	m, err := wire.ReadControl(s.control, wire.MaxControl)
	if errors.Is(err, wire.Malformed) {
		s.end(wire.Refuse(wire.Malformed)) // SPEC: whoever sends it hears why
	}
	if err != nil {
		return err
	}
	switch m := m.GetMessage().(type) {
	case *wirepb.Control_Ping:
		return s.send(&wirepb.Control{Message: &wirepb.Control_Pong{Pong: &wirepb.Pong{Id: m.Ping.GetId()}}})
	case *wirepb.Control_Ack:
		s.acknowledged(m.Ack)
	case *wirepb.Control_Command:
		return s.command(m.Command)
	case *wirepb.Control_Pong, *wirepb.Control_GoAway:
	case nil:
		// A kind of message that this version does not know: a newer agent's
		// business, and no reason to part.
	default:
		s.end(wire.Refuse(wire.Malformed))
		return wire.Unexpected(&wirepb.Control{Message: m}, "ping, ack, command or goaway")
	}
	return nil
}

// finish ends a session that was served. Nobody attends to it any more.
func (s *session) finish(err error) {
	defer s.f.tasks.Done()
	defer s.f.survive()
	s.leave(wire.TargetOffline) // the agent is gone: nobody shall open streams to it
	s.farewell()
	s.link.Close()
	s.goodbye(err)
}

// send writes one control message.
func (s *session) send(m *wirepb.Control) error {
	s.writeMu.Lock()
	defer s.writeMu.Unlock()
	s.control.SetWriteDeadline(time.Now().Add(writeTimeout))
	defer s.control.SetWriteDeadline(time.Time{}) // an idle session has no timer
	return wire.WriteControl(s.control, m)
}

// take takes a stream of the agent, which is served in a goroutine of its own.
func (s *session) take(stream transport.Stream) {
	if int(s.opening.Add(1)) > s.f.limits.StreamsOpening || !s.f.start(func() { s.serveStream(stream) }) {
		s.opening.Add(-1)
		stream.Reset() // so many at once is no use anybody has, or the forwarder ends
	}
}

// end ends the session and tells the agent why. It takes effect at once: no
// stream is opened any more and those that live are reset. It does not wait for
// the agent.
func (s *session) end(refusal *wire.Refusal) {
	s.mu.Lock()
	first := s.refusal == nil
	if first {
		s.refusal = refusal
	}
	s.mu.Unlock()
	if !first {
		return
	}
	s.f.metrics.refused.WithLabelValues(string(refusal.Code)).Inc()
	s.leave(refusal.Code)
	// Whoever attends to the session, or is woken to, says farewell and cleans up.
	s.control.SetReadDeadline(time.Unix(1, 0))
	s.mu.Lock()
	wake := s.wake
	s.mu.Unlock()
	if wake != nil {
		wake()
	}
}

// cut ends the link, unless the agent is being told why it ends.
func (s *session) cut() {
	if s.reason() == nil {
		s.link.Close()
	}
}

// farewell tells the agent why this side ends the session, if it does, and gives
// it a moment to read that.
func (s *session) farewell() {
	refusal := s.reason()
	if refusal == nil {
		return
	}
	sayRefused(s.control, s.link, refusal, &s.writeMu)
}

// sayRefused writes the refusal and waits until the peer has closed, or a
// second: cutting the link at once would lose the message.
func sayRefused(control transport.Stream, link transport.Session, refusal *wire.Refusal, writing sync.Locker) {
	writing.Lock()
	control.SetWriteDeadline(time.Now().Add(farewellTime))
	err := wire.WriteControl(control, wire.RefusedMessage(refusal))
	control.CloseWrite()
	writing.Unlock()
	if err != nil {
		return
	}
	timer := time.NewTimer(farewellTime)
	defer timer.Stop()
	select {
	case <-link.Done():
	case <-timer.C:
	}
}

func (s *session) reason() *wire.Refusal {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refusal
}

// leave takes the session out of the routes and ends the streams through it. Those
// that were being opened to its agent look for it elsewhere.
func (s *session) leave(code wire.Code) {
	live, opening := s.f.routes.leave(s)
	for _, stream := range live {
		stream.reset(code)
	}
	for _, stream := range opening {
		stream.resetTarget()
	}
}

// goodbye takes the session out of the directory and logs its end.
func (s *session) goodbye(err error) {
	ctx, cancel := context.WithTimeout(context.Background(), directoryWait)
	defer cancel()
	if err := s.f.directory.Remove(ctx, s.presence()); err != nil {
		s.log.Warn("removing the session from the directory; its lease will run out", "error", err)
	}
	s.log.Info("agent disconnected", "reason", s.describe(err), "lasted", time.Since(s.since).Round(time.Millisecond))
}

// describe says in a few words why the session ended.
func (s *session) describe(err error) string {
	if refusal := s.reason(); refusal != nil {
		return string(refusal.Code)
	}
	switch {
	case errors.Is(err, io.EOF):
		return "the agent closed the session"
	case errors.Is(err, transport.ErrSessionClosed):
		// It tells an agent that ended from one that was killed or fell silent.
		return strings.TrimPrefix(err.Error(), transport.ErrSessionClosed.Error()+": ")
	case isTimeout(err):
		return "a message did not come to its end"
	}
	return err.Error()
}

func isTimeout(err error) bool {
	var timeout interface{ Timeout() bool }
	return errors.As(err, &timeout) && timeout.Timeout()
}

// presence is the session as the directory keeps it.
func (s *session) presence() directory.Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	address := ""
	if a := s.link.RemoteAddr(); a != nil {
		address = a.String()
	}
	return directory.Session{ClientID: s.client, Node: s.f.node, Run: s.f.run, Session: s.id, Instance: s.instance,
		Epoch: s.epoch, Version: s.version, Protocols: s.carries.String(), Address: address, Since: s.since, ConfigAck: s.ack}
}
