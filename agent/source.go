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
	// From a connection at a listener to the answer of the service's side. The
	// forwarder's own limit is shorter and comes with a code.
	openTimeout = 20 * time.Second
	// A connection that finds all sessions being left waits so long for another.
	movingTime = 5 * time.Second
)

// carry takes one connection at a listener to the mapping's service. A refusal
// becomes a reset, which is what the one who connected can understand.
func (a *Agent) carry(mapping int64, conn *net.TCPConn) {
	defer conn.Close()
	s, stream := a.open(mapping, conn)
	if stream == nil {
		transport.Reset(conn)
		return
	}
	s.ended(transport.Splice(conn, stream, transport.Count{}))
}

// ended notes the end of a connection.
func (s *session) ended(forth, back int64, err error) {
	if s.log.Enabled(context.Background(), slog.LevelDebug) {
		s.log.Debug("connection ended", "forth", forth, "back", back, "error", err)
	}
}

// open gives a stream to the mapping's service, over any session, or nil. A stream
// that no service has heard of, because its session ended or its forwarder drains,
// is opened over another session; when all are being left, over the one that is on
// its way.
func (a *Agent) open(mapping int64, conn net.Conn) (*session, transport.Stream) {
	ctx, cancel := context.WithTimeout(a.ctx, openTimeout)
	defer cancel()
	var tried []*session
	var moving <-chan time.Time
	draining := false
	for {
		s, leaving, changed := a.sessions.pick(tried)
		if s == nil {
			if !leaving && !draining {
				return nil, nil
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
			return nil, nil
		}
		// A doubt about an earlier session may still look at the ones tried until then.
		sofar := append(slices.Clip(tried), s)
		tried = sofar
		stream, err := s.ask(ctx, mapping, conn, func() bool { return a.sessions.other(sofar) })
		if err == nil {
			return s, stream
		}
		draining = errors.Is(err, wire.NodeDraining)
		_, refused := errors.AsType[*wire.Refusal](err)
		if refused && !draining || ctx.Err() != nil {
			s.complain("connection refused", mapping, err, "from", conn.RemoteAddr())
			return nil, nil
		}
	}
}

// ask asks the forwarder for a stream to the mapping's service. An error that is no
// refusal means that no byte has reached the service. While the forwarder does not
// answer, other tells whether there is another session to try.
func (s *session) ask(ctx context.Context, mapping int64, conn net.Conn, other func() bool) (transport.Stream, error) {
	stream, err := s.link.Open(ctx)
	if err != nil {
		return nil, err
	}
	deadline, _ := ctx.Deadline()
	stream.SetDeadline(deadline)
	var decided atomic.Bool // by the answer, or by giving up: a stream that was answered is not reset
	giveUp := func() {
		if decided.CompareAndSwap(false, true) {
			stream.Reset()
		}
	}
	doubt := time.AfterFunc(doubtAfter, func() { s.doubt(other, giveUp) })
	defer doubt.Stop()
	err = wire.WriteOpen(stream, &wirepb.Open{MappingId: mapping, Peer: conn.RemoteAddr().String()})
	if err == nil {
		err = wire.ReadOpened(stream)
	}
	if err == nil && !decided.CompareAndSwap(false, true) {
		err = errSilent
	}
	if err != nil {
		stream.Close()
		return nil, err
	}
	stream.SetDeadline(time.Time{})
	return stream, nil
}
