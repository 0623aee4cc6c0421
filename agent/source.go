package agent

import (
	"context"
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
	stream, err := s.open(mapping, conn)
	if err != nil {
		s.log.Debug("connection refused", "mapping", mapping, "from", conn.RemoteAddr(), "reason", err)
		transport.Reset(conn)
		return
	}
	toService, fromService, err := transport.Splice(conn, stream, transport.Count{})
	s.log.Debug("connection ended", "mapping", mapping, "to_service", toService, "from_service", fromService, "error", err)
}

// open asks the forwarder for a stream to the mapping's service.
func (s *session) open(mapping int64, conn net.Conn) (transport.Stream, error) {
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
