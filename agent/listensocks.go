package agent

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tunnox-net/tunnox/socks"
	"github.com/tunnox-net/tunnox/transport"
	"github.com/tunnox-net/tunnox/wire"
	"github.com/tunnox-net/tunnox/wire/wirepb"
)

const (
	// greetTimeout is for a client to say who it is and what it wants.
	greetTimeout = 10 * time.Second
	// maxGreeting bounds the clients of one listener that have not said it yet. The
	// listener closes further ones.
	maxGreeting = 1024
)

// socksSocket is a listener for SOCKS 5: each connection says where it is to go.
type socksSocket struct {
	net.Listener
	greeting chan struct{}
	proved   *proved
	udp      *associations
}

// Close ends the associations too: their port is the listener's.
func (s socksSocket) Close() error { return errors.Join(s.Listener.Close(), s.udp.close()) }

// proved is the last right password. It is hashed together with the stored hash, so that
// it does not hold after a change of the password.
type proved struct {
	last    atomic.Pointer[[sha256.Size]byte]
	hashing sync.Mutex
}

func listenSOCKS(address netip.AddrPort) (socket, error) {
	l, err := listenTCP(address)
	if err != nil {
		return nil, err
	}
	return socksSocket{l.(tcpSocket).Listener, make(chan struct{}, maxGreeting), &proved{}, &associations{address: address}}, nil
}

// serve takes connections until the socket is closed.
func (s socksSocket) serve(ls *listeners, l *listener) {
	accept(ls, l, s.Listener, func(conn *net.TCPConn) { s.take(ls, l, conn) })
}

// take serves one client.
func (s socksSocket) take(ls *listeners, l *listener, conn *net.TCPConn) {
	command, destination, ok := s.greet(ls, l, conn)
	if !ok {
		_ = conn.Close()
		return
	}
	if command == socks.Associate {
		s.associate(ls, l, conn, destination)
		return
	}
	session, stream, err := ls.a.open(&wirepb.Open{MappingId: l.mapping, Peer: conn.RemoteAddr().String(), Destination: destination.String()}, l.options.Load(), conn)
	tally := ls.a.tunnels.tally(l.mapping, "")
	if err != nil {
		tally.refused(destination.String(), err)
		ls.a.socksRefused.Add(1)
		_ = socks.WriteReply(conn, replyOf(err), netip.AddrPort{})
		_ = conn.Close()
		return
	}
	defer conn.Close()
	// The address of the target agent's socket is not known here, and clients do not use
	// it. OpenSSH sends zeros too.
	if socks.WriteReply(conn, socks.Succeeded, netip.AddrPort{}) != nil {
		_ = stream.Reset()
		return
	}
	transport.Unfinished(conn)                   // from here on an early end must not look like the end of the data
	crossed := tally.begin(destination.String()) // whoever asks is of this machine; where to is what people want to know
	defer crossed.end()
	session.ended(transport.Splice(conn, stream, crossed.count()))
}

// greet reads where a client wants to go. If the client may not go there, greet tells it.
func (s socksSocket) greet(ls *listeners, l *listener, conn *net.TCPConn) (command socks.Command, to socks.Address, ok bool) {
	select {
	case s.greeting <- struct{}{}:
		defer func() { <-s.greeting }()
	default:
		ls.a.socksRefused.Add(1)
		return 0, to, false
	}
	_ = conn.SetDeadline(time.Now().Add(greetTimeout))
	err := socks.Greet(conn, s.check(l.options.Load()))
	if err == nil {
		command, to, err = socks.ReadRequest(conn)
	}
	if err == nil && command != socks.Associate && (command != socks.Connect || to.Port == 0) {
		reply := socks.NoSuchCommand
		if command == socks.Connect {
			reply = socks.Failed
		}
		err = socks.WriteReply(conn, reply, netip.AddrPort{})
		if err == nil {
			err = errors.New("the command is not one that is taken here")
		}
	}
	if err != nil {
		ls.a.socksRefused.Add(1)
		ls.a.log.Debug("a SOCKS client was refused", "mapping", l.mapping, "from", conn.RemoteAddr(), "error", err)
		return 0, to, false
	}
	_ = conn.SetDeadline(time.Time{})
	return command, to, true
}

// check gives a function that tells whether a client's name and password are right; nil
// when the mapping asks for none. A password that was right is not hashed again. Only one
// password is hashed at a time, so that guessing costs this machine one core at most.
func (s socksSocket) check(o *options) func(username, password string) bool {
	if o.Socks == nil {
		return nil
	}
	return func(username, password string) bool {
		given := sha256.Sum256([]byte(o.Socks.Password + "\x00" + username + "\x00" + password))
		if right := s.proved.last.Load(); right != nil && subtle.ConstantTimeCompare(right[:], given[:]) == 1 {
			return true
		}
		s.proved.hashing.Lock()
		defer s.proved.hashing.Unlock()
		name := subtle.ConstantTimeCompare([]byte(username), []byte(o.Socks.Username)) == 1
		if !socks.Matches(o.Socks.Password, password) || !name {
			return false
		}
		s.proved.last.Store(&given)
		return true
	}
}

// replyOf says in the words of SOCKS why there is no way to a destination.
func replyOf(err error) socks.Reply {
	switch wire.CodeOf(err) {
	case wire.PolicyDenied, wire.MappingDisabled, wire.NoSuchMapping, wire.QuotaConnections, wire.QuotaTraffic:
		return socks.NotAllowed
	case wire.TargetOffline, wire.NodeDraining, wire.TargetOverloaded:
		return socks.NetworkUnreachable
	case wire.DialUnreachable:
		return socks.HostUnreachable
	case wire.DialTimeout:
		return socks.TTLExpired
	case wire.DialRefused:
		return socks.Refused
	case wire.ProtocolUnavailable: // of an agent or forwarder that carries no associations
		return socks.NoSuchCommand
	}
	if errors.Is(err, errNoSession) {
		return socks.NetworkUnreachable
	}
	return socks.Failed
}
