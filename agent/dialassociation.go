package agent

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/tunnox-net/tunnox/datagram"
	"github.com/tunnox-net/tunnox/socks"
	"github.com/tunnox-net/tunnox/transport"
	"github.com/tunnox-net/tunnox/wire"
	"github.com/tunnox-net/tunnox/wire/wirepb"
)

// socksAssociation is what is carried for a UDP association of a socks5 mapping: a
// stream of datagrams, each of which has an address before it, in the form of SOCKS.
const socksAssociation = "socks5-udp"

const (
	// maxPeers and maxNames bound what one association can make this agent remember.
	maxPeers, maxNames = 4096, 256
	// peerKept is how long a peer may answer after the last datagram to it. After that,
	// another peer may get its place.
	peerKept = time.Minute
	// A name is resolved again after nameKept, or after nameless if it could not be
	// resolved. Until then, at most maxWaiting datagrams for one name wait.
	nameKept, nameless = 30 * time.Second, 3 * time.Second
	maxWaiting         = 8
)

// relay is the target's end of an association: one socket for all destinations, so that
// they see one source. It takes answers only from addresses that something was sent to.
type relay struct {
	t        *target
	mapping  int64
	protocol string
	socket   *datagram.Socket
	flow     *datagram.Flow
	ctx      context.Context
	cancel   context.CancelFunc

	mu    sync.Mutex // guards all below
	peers map[netip.AddrPort]*peer
	names map[string]*name
}

type peer struct {
	send func(payload []byte) error
	used time.Time
}

// name is a host that is being, or was, resolved.
type name struct {
	done    bool
	until   time.Time
	addrs   []netip.Addr
	waiting []waiting
}

type waiting struct {
	port    uint16
	payload []byte
}

// dialAssociation opens the socket of an association. The policy decides about each
// datagram by its destination.
func dialAssociation(_ context.Context, t *target, open *wirepb.Open) (transport.Duplex, error) {
	if t.embedded { // what the embedder's dial refuses would be reached past it
		return nil, wire.ProtocolUnavailable
	}
	socket, err := datagram.Listen("udp", ":0")
	if err != nil {
		return nil, dialCode(err)
	}
	r := &relay{t: t, mapping: open.GetMappingId(), protocol: protocolOf(open), socket: socket, peers: map[netip.AddrPort]*peer{}, names: map[string]*name{}}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	at := net.UDPAddrFromAddrPort(socket.LocalAddr())
	r.flow = datagram.NewFlow(at, at, &t.agent.datagrams, r.send, func() {
		r.cancel()
		_ = socket.Close()
	})
	t.agent.start(r.serve)
	return r.flow, nil
}

// serve takes what comes back until the association ends.
func (r *relay) serve() {
	var packet []byte
	for {
		err := r.socket.Receive(func(from netip.AddrPort, _ netip.Addr, payload []byte) {
			r.mu.Lock()
			known := r.peers[from] != nil
			r.mu.Unlock()
			if !known {
				r.t.agent.datagrams.Refused.Add(1)
				return
			}
			packet = append(socks.AppendAddress(packet[:0], from), payload...)
			if len(packet) > datagram.MaxPayload {
				r.t.agent.datagrams.Dropped.Add(1)
				return
			}
			r.flow.Deliver(packet)
		})
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			time.Sleep(time.Millisecond)
		}
	}
}

var (
	errNotSent = errors.New("the datagram was not sent")
	errBounds  = errors.New("the association has too many destinations")
)

// send takes one datagram of the client to its destination.
func (r *relay) send(packet []byte) error {
	to, payload, err := socks.SplitAddress(packet)
	if err != nil || to.Port == 0 {
		return errNotSent
	}
	if addr, err := netip.ParseAddr(to.Host); err == nil {
		return r.sendTo(to.Host, []netip.Addr{addr.Unmap()}, to.Port, payload)
	}
	return r.sendToName(to.Host, to.Port, payload)
}

// sendTo sends to the first of the addresses that may be reached, and can be.
func (r *relay) sendTo(host string, addrs []netip.Addr, port uint16, payload []byte) error {
	err := error(wire.PolicyDenied)
	now := time.Now()
	for _, addr := range addrs {
		if !r.t.allows(question{protocol: r.protocol, host: host, addr: addr, port: port, now: now}) {
			continue
		}
		var p *peer
		if p, err = r.peer(netip.AddrPortFrom(addr, port), now); err == nil {
			if err = p.send(payload); err == nil {
				return nil
			}
			err = dialCode(err)
		}
	}
	r.t.agent.complain("datagram not sent", r.mapping, err, "service", socks.Address{Host: host, Port: port}.String())
	return err
}

// peer notes that something is sent to an address, which may answer from then on.
func (r *relay) peer(at netip.AddrPort, now time.Time) (*peer, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.peers[at]
	if p == nil {
		if len(r.peers) >= maxPeers {
			for other, p := range r.peers {
				if now.Sub(p.used) > peerKept {
					delete(r.peers, other)
				}
			}
		}
		if len(r.peers) >= maxPeers {
			return nil, errBounds
		}
		p = &peer{send: r.socket.Answer(at, netip.Addr{})}
		r.peers[at] = p
	}
	p.used = now
	return p, nil
}

// sendToName sends to a name, once it is resolved. The caller waits for nothing.
func (r *relay) sendToName(host string, port uint16, payload []byte) error {
	now := time.Now()
	r.mu.Lock()
	n := r.names[host]
	if n != nil && n.done && now.After(n.until) {
		n = nil
	}
	switch {
	case n == nil:
		if n = r.resolving(host, now); n == nil {
			r.mu.Unlock()
			return errBounds
		}
		fallthrough
	case !n.done:
		full := len(n.waiting) >= maxWaiting
		if !full {
			n.waiting = append(n.waiting, waiting{port, slices.Clone(payload)})
		}
		r.mu.Unlock()
		if full {
			return errNotSent
		}
		return nil
	}
	addrs := n.addrs
	r.mu.Unlock()
	if len(addrs) == 0 {
		return errNotSent
	}
	return r.sendTo(host, addrs, port, payload)
}

// resolving has a name resolved, nil when there are too many. The lock is held.
func (r *relay) resolving(host string, now time.Time) *name {
	if len(r.names) >= maxNames {
		for other, n := range r.names {
			if n.done && now.After(n.until) {
				delete(r.names, other)
			}
		}
	}
	if len(r.names) >= maxNames {
		return nil
	}
	n := &name{}
	r.names[host] = n
	r.t.agent.start(func() {
		ctx, cancel := context.WithTimeout(r.ctx, serviceTimeout)
		defer cancel()
		addrs, err := r.t.addresses(ctx, host)
		if err != nil && r.ctx.Err() == nil {
			r.t.agent.complain("datagram not sent", r.mapping, err, "service", host)
		}
		kept := nameKept
		if err != nil {
			kept = nameless
		}
		r.mu.Lock()
		n.done, n.addrs, n.until = true, addrs, time.Now().Add(kept)
		waits := n.waiting
		n.waiting = nil
		r.mu.Unlock()
		for _, w := range waits {
			if len(addrs) == 0 || r.sendTo(host, addrs, w.port, w.payload) != nil {
				r.t.agent.datagrams.Dropped.Add(1)
			}
		}
	})
	return n
}
