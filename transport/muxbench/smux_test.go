package muxbench

import (
	"errors"
	"net"

	"github.com/xtaci/smux"
)

// smuxSession has of transport.Session what the benchmarks use. smux has no
// reset, so that it cannot pass the suite; it is here for its figures.
type smuxSession struct{ *smux.Session }

func newSmux(conn net.Conn, client bool) (session, error) {
	config := smux.DefaultConfig()
	config.Version = 2 // with a window for each stream
	config.MaxStreamBuffer = 1 << 20
	config.MaxReceiveBuffer = 16 << 20
	begin := smux.Server
	if client {
		begin = smux.Client
	}
	s, err := begin(conn, config)
	if err != nil {
		return nil, err
	}
	return smuxSession{s}, nil
}

func (s smuxSession) open() (net.Conn, error) { return s.OpenStream() }

func (s smuxSession) accept() (net.Conn, error) {
	c, err := s.AcceptStream()
	if err != nil {
		return nil, errors.Join(net.ErrClosed, err)
	}
	return c, nil
}

func (s smuxSession) close() { _ = s.Close() }
