package agent

import (
	"context"
	"log/slog"
	"net"
	"time"

	"github.com/tunnox-net/tunnox/transport"
	"github.com/tunnox-net/tunnox/wire"
	"github.com/tunnox-net/tunnox/wire/wirepb"
)

// From a connection at a listener to the answer of the service's side. The
// forwarder's own limit is shorter and comes with a code.
const openTimeout = 20 * time.Second

// carry takes one connection at a listener to the mapping's service. A refusal
// becomes a reset, which is what the one who connected can understand.
func (s *session) carry(mapping int64, conn *net.TCPConn) {
	defer conn.Close()
	stream := s.open(mapping, conn)
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

// open gives a stream to the mapping's service, or nil.
func (s *session) open(mapping int64, conn net.Conn) transport.Stream {
	stream, err := s.ask(mapping, conn)
	if err != nil {
		s.complain("connection refused", mapping, err, "from", conn.RemoteAddr())
		return nil
	}
	return stream
}

// ask asks the forwarder for a stream to the mapping's service.
func (s *session) ask(mapping int64, conn net.Conn) (transport.Stream, error) {
	ctx, cancel := context.WithTimeout(context.Background(), openTimeout)
	defer cancel()
	stream, err := s.link.Open(ctx)
	if err != nil {
		return nil, err
	}
	deadline, _ := ctx.Deadline()
	stream.SetDeadline(deadline)
	err = wire.WriteOpen(stream, &wirepb.Open{MappingId: mapping, Peer: conn.RemoteAddr().String()})
	if err == nil {
		err = wire.ReadOpened(stream)
	}
	if err != nil {
		stream.Close()
		return nil, err
	}
	stream.SetDeadline(time.Time{})
	return stream, nil
}
