package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/tunnox-net/tunnox/transport"
	"github.com/tunnox-net/tunnox/wire"
	"github.com/tunnox-net/tunnox/wire/wirepb"
)

// dialTCP reaches the host and port that the stream names.
func dialTCP(ctx context.Context, t *target, open *wirepb.Open) (transport.Duplex, error) {
	conn, err := t.reach(ctx, "tcp", protocolOf(open), open.GetService())
	if err != nil {
		return nil, err
	}
	if duplex, ok := conn.(transport.Duplex); ok {
		return duplex, nil
	}
	_ = conn.Close()
	return nil, fmt.Errorf("dial service: %T cannot close one side", conn)
}

// dialFirst dials the addresses in turn, so that each gets its share of the time,
// and gives the first connection.
func (t *target) dialFirst(ctx context.Context, network string, addrs []netip.Addr, port uint16) (net.Conn, error) {
	var last error
	for i, addr := range addrs {
		deadline, _ := ctx.Deadline()
		share, cancel := context.WithTimeout(ctx, time.Until(deadline)/time.Duration(len(addrs)-i))
		conn, err := t.dial(share, network, netip.AddrPortFrom(addr, port).String())
		cancel()
		if err == nil {
			return conn, nil
		}
		last = err
	}
	return nil, dialCode(last)
}

// dialCode gives the code that tells the other side what the dial met.
func dialCode(err error) error {
	switch {
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENOENT): // the second is a unix socket that is not there
		return wire.DialRefused
	case isTimeout(err), errors.Is(err, context.DeadlineExceeded):
		return wire.DialTimeout
	}
	return wire.DialUnreachable
}
