package agent

import (
	"context"
	"net"

	"github.com/tunnox-net/tunnox/transport"
	"github.com/tunnox-net/tunnox/wire/wirepb"
)

// Inspector shows the owner of the machine what passes over tunnels that ask for it.
type Inspector interface {
	// Begin watches a mapping until End, and gives the URL of the page that shows it.
	Begin(mapping int64) (url string, err error)
	End(mapping int64)
	// Watch gives the connection to hand bytes over: conn itself when the mapping is not
	// watched. dial makes another connection to the same service.
	Watch(mapping int64, conn transport.Duplex, dial func(context.Context) (net.Conn, error)) transport.Duplex
}

// watched gives the connection to a service that the inspector may read along.
func (t *target) watched(open *wirepb.Open, conn transport.Duplex) transport.Duplex {
	if t.agent.inspector == nil || open.GetMappingId() == 0 || open.GetProtocol() == "udp" {
		return conn
	}
	return t.agent.inspector.Watch(open.GetMappingId(), conn, func(ctx context.Context) (net.Conn, error) {
		again, err := t.dialKind(ctx, open) // the policy is asked again
		if err != nil {
			return nil, err
		}
		if err := herald(again, open); err != nil { // the service waits for it, as for a visitor's
			return nil, err
		}
		return again, nil
	})
}

// inspect watches the tunnel's mapping for as long as the tunnel lasts, when the program
// asked for it. The tunnel works without, so that a page that cannot be opened is a
// warning.
func (t *tunnel) inspect() (end func()) {
	if !t.wish.Inspect || t.mapping == nil {
		return func() {}
	}
	if t.a.inspector == nil {
		t.tell(TunnelNews{Event: "warning", Code: "no_inspector", Message: "this agent has no inspector"})
		return func() {}
	}
	id := t.mapping.GetMappingId()
	url, err := t.a.inspector.Begin(id)
	if err != nil {
		t.tell(TunnelNews{Event: "warning", Code: "no_inspector", Message: "the inspector cannot start: " + err.Error()})
		return func() {}
	}
	t.inspector = url
	return func() { t.a.inspector.End(id) }
}
