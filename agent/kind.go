package agent

import (
	"context"
	"maps"
	"net/netip"
	"slices"

	"github.com/tunnox-net/tunnox/transport"
	"github.com/tunnox-net/tunnox/wire/wirepb"
)

// kind is how the agent carries one protocol, at both ends: a file each, such as
// listentcp.go and dialtcp.go.
type kind struct {
	// listen opens the listener; nil for a kind that is a service only.
	listen func(netip.AddrPort) (socket, error)
	// dial reaches the service that a stream is for, as far as the policy allows.
	dial func(context.Context, *target, *wirepb.Open) (transport.Duplex, error)
}

// socket is an origin that is open. Closing it ends serve, and leaves the
// connections that came through it.
type socket interface {
	// serve takes what comes in, until the socket is closed.
	serve(*listeners, *listener)
	Close() error
}

// kinds are the protocols that this agent carries.
var kinds = map[string]kind{
	"tcp": {listen: listenTCP, dial: dialTCP},
	"udp": {listen: listenUDP, dial: dialUDP},
	// The forwarder replaces the service by the destination that the client asked for.
	"socks5": {listen: listenSOCKS, dial: dialTCP},
	// A UDP association of such a mapping; see associate.go.
	socksAssociation: {dial: dialAssociation},
	// Kinds of services, to which connections of several protocols lead.
	"unix":  {dial: dialUnix},
	"files": {dial: dialFiles},
}

// protocols lists what this agent carries, for Hello.
func protocols() []string {
	return slices.Sorted(slices.Values(append(slices.Collect(maps.Keys(kinds)), carriesProxyProtocol)))
}

// listens gives the kind for a protocol that this agent can listen for.
func listens(protocol string) (kind, bool) {
	k, ok := kindOf(protocol)
	return k, ok && k.listen != nil
}

// kindOf gives the kind for a protocol. Forwarders that do not say which mean tcp.
func kindOf(protocol string) (kind, bool) {
	if protocol == "" {
		protocol = "tcp"
	}
	k, ok := kinds[protocol]
	return k, ok
}
