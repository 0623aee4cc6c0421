package main

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"

	"github.com/tunnox-net/tunnox/datagram"
)

// listeners are the sockets of a process. They are opened before anything is
// built, so that an address in use is told at once and nothing was started.
type listeners struct {
	api, agents, ws, metrics, state, bridge, http, https, tls net.Listener // nil = this role has none

	quic, http3 net.PacketConn // nil = none
	http3Fault  error          // why there is no http3 that could be

	public string // host of the public ports, which open as mappings ask for them; "" = none
}

// binding is what a role listens on; an empty address is none.
type binding struct {
	api, agents, ws, quic, metrics, state, bridge, http, https, http3, tls string

	tryout bool // http and tls are what listenTryout opens
}

// openListeners opens those whose address is not empty.
func openListeners(on binding) (_ *listeners, err error) {
	ls := &listeners{}
	defer func() {
		if err != nil {
			err = errors.Join(err, ls.close())
		}
	}()
	for _, l := range []struct {
		flag, address string
		to            *net.Listener
	}{{"api", on.api, &ls.api}, {"listen", on.agents, &ls.agents}, {"ws", on.ws, &ls.ws}, {"metrics", on.metrics, &ls.metrics},
		{"state", on.state, &ls.state}, {"bridge", on.bridge, &ls.bridge}, {"http", on.http, &ls.http}, {"https", on.https, &ls.https}, {"tls", on.tls, &ls.tls}} {
		if l.address == "" {
			continue
		}
		if *l.to, err = listenTCP(l.address); err != nil {
			return nil, fmt.Errorf("--%s %s: %w", l.flag, l.address, notListening(l.flag, err))
		}
	}
	if on.tryout {
		if ls.http, err = listenTryout(tryoutHTTP); err != nil {
			return nil, fmt.Errorf("--http %s: %w", tryoutHTTP, err)
		}
		if ls.tls, err = listenTryout(tryoutTLS); err != nil {
			return nil, fmt.Errorf("--tls %s: %w", tryoutTLS, err)
		}
	}
	if ls.quic, err = ls.listenQUIC(on); err != nil {
		return nil, err
	}
	if ls.http3, err = ls.listenHTTP3(on); err != nil {
		return nil, err
	}
	return ls, nil
}

// notListening adds to an error of listening what to do.
func notListening(flag string, err error) error {
	switch {
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("%w\n  ports below 1024 are for root: tunnoxd service install makes a service that may have them, and so does sudo setcap cap_net_bind_service=+ep on this program", err)
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("%w\n  another program listens there, perhaps another tunnoxd: end it, or choose another address with --%s", err, flag)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("%w\n  this machine does not have that address", err)
	}
	return err
}

// listenTCP opens an address. An IPv4 one is that: with the network left open,
// 0.0.0.0 would be every IPv6 address too.
func listenTCP(address string) (net.Listener, error) {
	network := "tcp"
	if ipv4Only(address) {
		network = "tcp4"
	}
	return net.Listen(network, address)
}

// listenDatagrams is the same for the flows of a public port.
func listenDatagrams(address string) (*datagram.Socket, error) {
	network := "udp"
	if ipv4Only(address) {
		network = "udp4"
	}
	return datagram.Listen(network, address)
}

// ipv4Only tells whether the address names one of IPv4.
func ipv4Only(address string) bool {
	host, _, err := net.SplitHostPort(address)
	return err == nil && net.ParseIP(host).To4() != nil && !strings.Contains(host, ":")
}

// close closes what is open. Servers close their listener too, which is no error.
func (ls *listeners) close() error {
	var errs []error
	for _, l := range []net.Listener{ls.api, ls.agents, ls.ws, ls.metrics, ls.state, ls.bridge, ls.http, ls.https, ls.tls} {
		if l == nil {
			continue
		}
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	for _, socket := range []net.PacketConn{ls.quic, ls.http3} {
		if socket == nil {
			continue
		}
		if err := socket.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// servesHosts tells whether visitors of public hosts come here.
func (ls *listeners) servesHosts() bool { return ls.http != nil || ls.https != nil || ls.tls != nil }

// addresses are what was bound, as addresses.json holds it.
func (ls *listeners) addresses() map[string]string {
	bound := map[string]string{}
	for name, l := range map[string]net.Listener{"api": ls.api, "agents": ls.agents, "metrics": ls.metrics,
		"state": ls.state, "bridge": ls.bridge, "http": ls.http, "https": ls.https, "tls": ls.tls} {
		if l != nil {
			bound[name] = dialable(l.Addr().String())
		}
	}
	// The port of --listen takes WebSockets too.
	if agents, ok := bound["agents"]; ok {
		bound["ws"] = agents
	}
	if ls.ws != nil {
		bound["ws"] = dialable(ls.ws.Addr().String())
	}
	if ls.quic != nil {
		bound["quic"] = dialable(ls.quic.LocalAddr().String())
	}
	if ls.http3 != nil {
		bound["http3"] = dialable(ls.http3.LocalAddr().String())
	}
	if ls.public != "" {
		bound["public"] = ls.public
	}
	return bound
}

// dialable turns "every address of this machine" into one that can be dialled
// from it; scripts read it.
func dialable(address string) string {
	host, port, err := net.SplitHostPort(address)
	if ip := net.ParseIP(host); err == nil && ip != nil && ip.IsUnspecified() {
		return net.JoinHostPort("127.0.0.1", port)
	}
	return address
}

// reachable gives host:port of a listener as other machines see it:
// what was configured, or this machine's first address that is not loopback.
func reachable(advertise string, bound net.Addr) string {
	if advertise != "" {
		return advertise
	}
	host, port, err := net.SplitHostPort(bound.String())
	if err != nil || !unspecified(host) {
		return bound.String()
	}
	outward := "127.0.0.1" // a machine without a network is reached from itself
	if ips := ownIPs(); len(ips) > 0 {
		outward = ips[0].String()
	}
	return net.JoinHostPort(outward, port)
}

// guessed tells that reachable chose one of this machine's addresses.
func guessed(advertise string, bound net.Addr) bool {
	host, _, err := net.SplitHostPort(bound.String())
	return advertise == "" && err == nil && unspecified(host)
}

func unspecified(host string) bool {
	ip := net.ParseIP(withoutZone(host))
	return ip != nil && ip.IsUnspecified()
}

// withoutZone takes the interface off an address such as fe80::1%eth0.
func withoutZone(host string) string {
	host, _, _ = strings.Cut(host, "%")
	return host
}

// ownIPs are this machine's addresses beyond loopback and link, IPv4 first.
func ownIPs() []net.IP {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	var four, six []net.IP
	for _, a := range addresses {
		network, ok := a.(*net.IPNet)
		switch {
		case !ok || !network.IP.IsGlobalUnicast():
		case network.IP.To4() != nil:
			four = append(four, network.IP)
		default:
			six = append(six, network.IP)
		}
	}
	return append(four, six...)
}
