package services

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Proxy stands before a server and can disturb the network to it. Its zero state passes
// everything on.
type Proxy struct {
	Addr string // clients of the server connect here

	upstream string
	running  sync.WaitGroup

	mu       sync.Mutex
	listener net.Listener       // guarded by mu; nil while the network is cut
	links    map[*link]struct{} // guarded by mu
	delay    time.Duration      // guarded by mu; of each direction
	swallow  bool               // guarded by mu
	rate     float64            // bytes a second from clients to the server, 0 = as fast as it goes
	free     time.Time          // guarded by turn; when the link has sent everything
	turn     sync.Mutex         // held while a packet is on the link
}

// packet is what a link with a rate sends at once.
const packet = 1448

// link is a connection through the proxy: the two halves of it.
type link struct{ client, server net.Conn }

func (l *link) close() { _ = errors.Join(l.client.Close(), l.server.Close()) } // they may be closed already

// StartProxy starts a proxy for the server at upstream, host:port, which need not
// be there yet. It ends with the test.
func StartProxy(t testing.TB, upstream string) *Proxy {
	t.Helper()
	return StartSlowProxy(t, upstream, 0)
}

// StartSlowProxy is StartProxy with a slow uplink: so many bytes a second pass from
// clients to the server, of all connections together, in turns of a packet. The link
// holds little itself, so that what waits, waits at the sender.
func StartSlowProxy(t testing.TB, upstream string, rate float64) *Proxy {
	t.Helper()
	p := &Proxy{Addr: "127.0.0.1:0", upstream: upstream, links: map[*link]struct{}{}, rate: rate}
	p.Heal(t)
	t.Cleanup(func() {
		p.Cut()
		p.running.Wait()
	})
	return p
}

// Cut ends all connections and refuses new ones.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listener != nil {
		_ = p.listener.Close()
		p.listener = nil
	}
	p.cutLinks()
}

// cutLinks ends all connections. The caller holds mu.
func (p *Proxy) cutLinks() {
	for l := range p.links {
		l.close()
	}
}

// Delay delays both directions together by so many milliseconds.
func (p *Proxy) Delay(ms int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = time.Duration(ms) * time.Millisecond / 2
}

// uplink carries one direction over the slow link.
func (p *Proxy) uplink(l *link) {
	b := make([]byte, packet)
	for {
		n, err := l.client.Read(b)
		if err != nil {
			break
		}
		p.turn.Lock()
		if now := time.Now(); p.free.Before(now.Add(-5 * time.Millisecond)) { // it may make up for a late timer
			p.free = now.Add(-5 * time.Millisecond)
		}
		p.free = p.free.Add(time.Duration(float64(n) / p.rate * float64(time.Second)))
		time.Sleep(time.Until(p.free))
		p.turn.Unlock()
		if _, err := l.server.Write(b[:n]); err != nil {
			break
		}
	}
	l.close()
}

// Swallow drops all bytes; connections stay open and can be made: a half-open peer.
func (p *Proxy) Swallow() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.swallow = true
}

// Heal repairs the network. Connections whose bytes were dropped end, because lost
// bytes do not come back.
func (p *Proxy) Heal(t testing.TB) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.swallow {
		p.cutLinks()
	}
	p.delay, p.swallow = 0, false
	if p.listener != nil {
		return
	}
	// A connection of a slow link inherits a small buffer: set later, it would be
	// too late for the window that the peer was given.
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		if p.rate > 0 {
			_ = raw.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4<<10) })
		}
		return err
	}}
	l, err := config.Listen(context.Background(), "tcp", p.Addr)
	if err != nil {
		t.Fatal(err)
	}
	p.Addr, p.listener = l.Addr().String(), l
	p.running.Go(func() { p.accept(l) })
}

func (p *Proxy) accept(from net.Listener) {
	for {
		client, err := from.Accept()
		if err != nil {
			return // cut
		}
		p.running.Go(func() { p.carry(from, client) })
	}
}

// carry connects a client with the server until either ends.
func (p *Proxy) carry(from net.Listener, client net.Conn) {
	server, err := net.DialTimeout("tcp", p.upstream, 10*time.Second)
	if err != nil {
		_ = client.Close()
		return
	}
	l := &link{client, server}
	defer l.close()
	p.mu.Lock()
	if p.listener != from { // the network was cut in between
		p.mu.Unlock()
		return
	}
	p.links[l] = struct{}{}
	p.mu.Unlock()
	var directions sync.WaitGroup
	directions.Go(func() {
		if p.rate > 0 {
			p.uplink(l)
			return
		}
		p.pass(l, client, server)
	})
	directions.Go(func() { p.pass(l, server, client) })
	directions.Wait()
	p.mu.Lock()
	delete(p.links, l)
	p.mu.Unlock()
}

// parcel is the result of one read, with the time when it is due at the other end.
type parcel struct {
	bytes []byte
	due   time.Time
}

// pass carries one direction. A delay does not limit the throughput: parcels that are
// not due yet do not stop further reads.
func (p *Proxy) pass(l *link, from, to net.Conn) {
	parcels := make(chan parcel, 1024)
	var writing sync.WaitGroup
	writing.Go(func() {
		for next := range parcels {
			time.Sleep(time.Until(next.due))
			if _, err := to.Write(next.bytes); err != nil {
				l.close() // ends the reads too
			}
		}
	})
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		p.mu.Lock()
		delay, swallow := p.delay, p.swallow
		p.mu.Unlock()
		if n > 0 && !swallow {
			if delay > 0 { // a tenth more or less
				delay += time.Duration((rand.Float64() - 0.5) / 5 * float64(delay))
			}
			parcels <- parcel{append([]byte(nil), buffer[:n]...), time.Now().Add(delay)}
		}
		if err != nil {
			break
		}
	}
	close(parcels)
	writing.Wait()
	if half, ok := to.(*net.TCPConn); !ok || half.CloseWrite() != nil {
		l.close()
	}
}
