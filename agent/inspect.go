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
	// Record is Begin without the page: what passes is kept for Requests.
	Record(mapping int64)
	// Requests gives the latest requests of a mapping that is watched, the latest first.
	Requests(mapping int64, most int) []Request
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

// inspect watches the tunnel's mapping, when the program asked for it, until unwatch is
// called. The tunnel works without, so that a page that cannot be opened is a warning.
func (t *tunnel) inspect() {
	t.unwatch = func() {}
	switch {
	case t.mapping == nil || !t.wish.Inspect && !t.wish.Watch:
	case t.a.inspector == nil && !t.wish.Inspect:
	case t.a.inspector == nil:
		t.tell(TunnelNews{Event: "warning", Code: "no_inspector", Message: "this agent has no inspector"})
	case !t.wish.Inspect:
		if t.wish.Protocol == "http" {
			t.record()
		}
	default:
		id := t.mapping.GetMappingId()
		url, err := t.a.inspector.Begin(id)
		if err != nil {
			t.tell(TunnelNews{Event: "warning", Code: "no_inspector", Message: "the inspector cannot start: " + err.Error()})
			return
		}
		t.inspector, t.unwatch = url, func() { t.a.inspector.End(id) }
	}
}

func (t *tunnel) record() {
	id := t.mapping.GetMappingId()
	t.a.inspector.Record(id)
	t.unwatch = func() { t.a.inspector.End(id) }
}
