package agent

import (
	"context"
	"fmt"
	"net"

	"github.com/tunnox-net/tunnox/datagram"
	"github.com/tunnox-net/tunnox/transport"
	"github.com/tunnox-net/tunnox/wire/wirepb"
)

// dialUDP reaches the host and port that the stream names with a socket of its own, so
// that the service knows the flow by its port. Whether a service is there is known later, if
// at all, and ends nothing.
func dialUDP(ctx context.Context, t *target, open *wirepb.Open) (transport.Duplex, error) {
	conn, err := t.reach(ctx, "udp", protocolOf(open), open.GetService())
	if err != nil {
		return nil, err
	}
	udp, ok := conn.(*net.UDPConn)
	if !ok {
		_ = conn.Close()
		return nil, fmt.Errorf("dial service: %T is no UDP socket", conn)
	}
	flow, serve, err := datagram.Dial(udp, &t.agent.datagrams, func(err error) {
		t.agent.complain("service not reached", open.GetMappingId(), dialCode(err), "service", open.GetService())
	})
	if err != nil {
		_ = udp.Close()
		return nil, fmt.Errorf("dial service: %w", err)
	}
	t.agent.start(serve)
	return flow, nil
}
