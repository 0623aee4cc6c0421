package agent

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"slices"
	"sync/atomic"
	"time"

	"github.com/tunnox-net/tunnox/transport"
	"github.com/tunnox-net/tunnox/wire"
	"github.com/tunnox-net/tunnox/wire/wirepb"
)

const (
	// openTimeout is the time from a connection at a listener to the answer from the
	// service's side. The forwarder has a shorter limit, and its refusal has a code.
	openTimeout = 20 * time.Second
	// movingTime is how long a connection waits for a new session when the agent is
	// leaving all the sessions it has.
	movingTime = 5 * time.Second
)

// errNoSession: there is no forwarder to ask.
var errNoSession = errors.New("the agent is not connected")

// carry joins one connection, or flow of datagrams, at a listener to the mapping's service.
// carry reports false, with the connection as it was, when there is no way to the service.
func (a *Agent) carry(l *listener, conn transport.Duplex) bool {
	s, stream, err := a.open(&wirepb.Open{MappingId: l.mapping, Peer: conn.RemoteAddr().String(), Local: localText(conn)}, l.options.Load(), conn)
	tally := a.tunnels.tally(l.mapping, "")
	if err != nil {
		tally.refused(peerOf(conn), err)
		return false
	}
	crossed := tally.begin(peerOf(conn))
	defer crossed.end()
	defer conn.Close()
	s.ended(transport.Splice(conn, stream, crossed.count()))
	return true
}

func peerOf(conn net.Conn) string { return conn.RemoteAddr().String() }

// ended logs the end of a connection.
func (s *session) ended(forth, back int64, err error) {
	if s.log.Enabled(context.Background(), slog.LevelDebug) {
		s.log.Debug("connection ended", "forth", forth, "back", back, "error", err)
	}
}

// open returns a stream to the mapping's service over any session, or why there is none. If the
// session ends or its forwarder drains before the service has heard of the stream,
// open tries another session. If the agent is leaving all its sessions, open waits for
// the new one. When the program that made the connection leaves, open gives up at once.
func (a *Agent) open(open *wirepb.Open, o *options, conn net.Conn) (*session, transport.Stream, error) {
	ctx, cancel := context.WithTimeout(a.ctx, openTimeout)
	defer cancel()
	defer transport.OnLeave(conn, cancel)()
	var tried []*session
	var moving <-chan time.Time
	draining := false
	for {
		s, leaving, changed := a.sessions.pick(tried)
		if s == nil {
			if !leaving && !draining {
				return nil, nil, errNoSession
			}
			if moving == nil {
				timer := time.NewTimer(movingTime)
				defer timer.Stop()
				moving = timer.C
			}
			select {
			case <-changed:
				continue
			case <-moving:
			case <-ctx.Done():
			}
			return nil, nil, errNoSession
		}
		// Cloned, because a doubt about an earlier session may still read its own list.
		sofar := append(slices.Clip(tried), s)
		tried = sofar
		stream, err := s.ask(ctx, open, o, func() bool { return a.sessions.other(sofar) })
		if err == nil {
			return s, stream, nil
		}
		draining = errors.Is(err, wire.NodeDraining)
		_, refused := errors.AsType[*wire.Refusal](err)
		if errors.Is(ctx.Err(), context.Canceled) {
			s.log.Debug("a connection ended before its service had answered", "mapping", open.GetMappingId(), "from", open.GetPeer())
			return nil, nil, context.Canceled
		}
		if refused && !draining || ctx.Err() != nil {
			s.complain("connection refused", open.GetMappingId(), err, "from", open.GetPeer())
			return nil, nil, err
		}
	}
}

// ask asks the forwarder for a stream to the mapping's service. An error that is not a
// refusal means that no byte has reached the service. If the forwarder does not answer,
// ask calls other to learn whether there is another session to try.
func (s *session) ask(ctx context.Context, open *wirepb.Open, o *options, other func() bool) (transport.Stream, error) {
	for tries := 1; ; tries++ {
		stream, half, err := s.askOnce(ctx, open, o, other)
		// Another try may be whole where this one went on after an earlier handshake, and one
		// more may be meant for a newer key.
		if tries >= maxHandshakes || !half.replayed(err) && !half.renewed(ctx, err) {
			return stream, err
		}
	}
}

// maxHandshakes bounds how often a handshake is begun for one connection.
const maxHandshakes = 3

func (s *session) askOnce(ctx context.Context, open *wirepb.Open, o *options, other func() bool) (transport.Stream, *initiation, error) {
	half, open, err := s.initiate(ctx, open, o)
	if err != nil {
		return nil, nil, asRefusal(err)
	}
	stream, err := s.link.Open(ctx)
	if err != nil {
		return nil, nil, err
	}
	deadline, _ := ctx.Deadline()
	stream.SetDeadline(deadline)
	var decided atomic.Bool // set by the answer or by giveUp, whichever is first: an answered stream must not be reset
	giveUp := func() {
		if decided.CompareAndSwap(false, true) {
			stream.Reset()
		}
	}
	defer context.AfterFunc(ctx, giveUp)() // the program that made the connection has left, or the time is over
	doubt := time.AfterFunc(doubtAfter, func() { s.doubt(other, giveUp) })
	defer doubt.Stop()
	var answer *wirepb.Opened
	err = wire.WriteOpen(stream, open)
	if err == nil {
		answer, err = wire.ReadYes(stream)
	}
	if err == nil && !decided.CompareAndSwap(false, true) {
		err = errSilent
	}
	if err != nil {
		stream.Close()
		return nil, half, err
	}
	stream.SetDeadline(time.Time{})
	sealed, err := half.finish(ctx, stream, answer.GetSeal())
	if err != nil {
		stream.Reset()                  // the service has been reached, and may not take this for an end
		return nil, nil, asRefusal(err) // and is not reached again
	}
	s.lanes.promotable(sealed, answer.GetTicket())
	return sealed, half, nil
}
