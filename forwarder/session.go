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
	"github.com/tunnox-net/tunnox/netaddr"
	"github.com/tunnox-net/tunnox/transport"
	"github.com/tunnox-net/tunnox/wire"
	"github.com/tunnox-net/tunnox/wire/wirepb"
)

const (
	writeTimeout = 10 * time.Second // an agent that does not read its control stream is dead
	readTimeout  = 10 * time.Second // for the rest of a message that has begun
	farewellTime = time.Second / 2  // time to read the reason, before the link is cut
)

// errPanic ends a session whose message could not be handled.
var errPanic = errors.New("a panic")

// session is one agent's proved link. While the agent sends nothing no goroutine serves
// it. One goroutine serves each control message, one after the other, and one serves
// each stream until its bytes flow; another one writes configurations, while there is
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
	running  []byte // digest of the configuration that the agent says it runs

	// Owned by login, and then by the goroutine that assigns, one at a time.
	offered []*wirepb.Forwarder        // the other forwarders that the agent was told
	sent    map[int64]*wirepb.Listener // the listeners that the agent was told; nil before the first
	lacking []int64                    // mappings whose protocol or encryption the agent does not carry

	opening atomic.Int32 // streams waiting for Opened

	lanes lanes

	commands chan struct{} // a slot for each command without a result

	complaints *rate.Limiter // about the agent, in the log; nil before the first, used by attend only
	wishes     *rate.Limiter // of commands; used by attend only

	writeMu sync.Mutex // one control message at a time

	mu        sync.Mutex
	wrong     time.Time // since when the agent's configuration is out of date; zero: not measured
	pushes    []push    // configurations sent and not yet acknowledged
	ack       int64     // the newest acknowledged configuration
	stale     bool      // the agent's configuration must be compared
	welcomed  bool      // configurations may be sent
	wake      func()    // attends to the next control message at once; nil before serve
	assigning bool      // a goroutine assigns
	whole     bool      // the next assignment is a whole configuration

	renewAt time.Time // when the session must be registered again
	refusal *wire.Refusal
}

// push is a configuration on its way to the agent.
type push struct {
	version uint64
	at      time.Time // when its cause was decided
}

// serve begins to serve a welcomed session. From then on the session has a task of the
// forwarder, until finish ends the task.
func (s *session) serve() {
	s.f.tasks.Add(1) // this runs in a task, so the number is not 0 and Close waits
	s.mu.Lock()
	s.welcomed = true
	s.mu.Unlock()
	s.link.OnOpen(s.accept)
	s.configure(time.Time{})
	s.listen()
}

// listen waits for the agent's next control message, without a goroutine. There is no
// limit of time: the transport notices a peer that sends no bytes any more.
func (s *session) listen() {
	s.control.SetReadDeadline(time.Time{})
	s.mu.Lock()
	s.wake = s.control.OnRead(s.attend)
	over := s.refusal != nil
	s.mu.Unlock()
	if over {
		s.wake() // end may have been called just before
	}
}

// attend handles a control message that has begun to arrive, or ends the session.
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

// read reads and handles one control message.
func (s *session) read() error {
	s.control.SetReadDeadline(time.Now().Add(readTimeout))
	if refusal := s.reason(); refusal != nil { // end may have been called just before the deadline above
		return refusal
	}
	m, err := wire.ReadControl(s.control, wire.MaxControl)
	if errors.Is(err, wire.Malformed) {
		s.end(wire.Refuse(wire.Malformed)) // SPEC: the sender is told the reason
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
		// A kind of message that this version does not know comes from a newer agent,
		// and is no reason to end the session.
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
	s.leave(wire.TargetOffline) // the agent is gone: nobody may open streams to it
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

// accept accepts a stream of the agent, which is served in a goroutine of its own.
func (s *session) accept(stream transport.Stream) {
	if int(s.opening.Add(1)) > s.f.limits.StreamsOpening || !s.f.start(func() { s.serveStream(stream) }) {
		s.opening.Add(-1)
		stream.Reset() // no agent needs so many at once, or the forwarder ends
	}
}

// end ends the session and tells the agent why. It takes effect at once: no stream is
// opened any more and live streams are reset. It does not wait for the agent.
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
	// The goroutine that attends to the session, or that this wakes, tells the agent
	// and cleans up.
	s.control.SetReadDeadline(time.Unix(1, 0))
	s.mu.Lock()
	wake := s.wake
	s.mu.Unlock()
	if wake != nil {
		wake()
	}
}

// cut closes the link, unless the agent is being told why the session ends.
func (s *session) cut() {
	if s.reason() == nil {
		s.link.Close()
	}
}

// farewell tells the agent why this side ends the session, if it does, and gives it a
// moment to read that.
func (s *session) farewell() {
	refusal := s.reason()
	if refusal == nil {
		return
	}
	sayRefused(s.control, s.link, refusal, &s.writeMu)
}

// sayRefused writes the refusal and waits until the peer has closed, for a second at
// most: if the link were closed at once, the message would be lost.
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

// leave removes the session from the routes and ends its streams. Streams that were
// being opened to its agent look for the agent elsewhere.
func (s *session) leave(code wire.Code) {
	live, opening := s.f.routes.leave(s)
	s.closeLanes()
	for _, stream := range live {
		stream.reset(code)
	}
	for _, stream := range opening {
		stream.resetTarget()
	}
}

// goodbye removes the session from the directory and logs its end.
func (s *session) goodbye(err error) {
	ctx, cancel := context.WithTimeout(context.Background(), directoryWait)
	defer cancel()
	if err := s.f.directory.Remove(ctx, s.presence()); err != nil {
		s.log.Warn("removing the session from the directory; its lease will expire", "error", err)
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
		// The text tells an agent that ended from one that was killed or fell silent.
		return netaddr.Masked(strings.TrimPrefix(err.Error(), transport.ErrSessionClosed.Error()+": "))
	case isTimeout(err):
		return "a message was incomplete"
	}
	return netaddr.Masked(err.Error())
}

func isTimeout(err error) bool {
	var timeout interface{ Timeout() bool }
	return errors.As(err, &timeout) && timeout.Timeout()
}

// presence gives the session as the directory stores it.
func (s *session) presence() directory.Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	address := ""
	if a := s.link.RemoteAddr(); a != nil {
		address = a.String()
	}
	return directory.Session{ClientID: s.client, Node: s.f.node, Run: s.f.run, Session: s.id, Instance: s.instance,
		Epoch: s.epoch, Version: s.version, Protocols: s.carries.String(), Address: address, Transport: transport.SchemeOf(s.link), Since: s.since, ConfigAck: s.ack}
}
