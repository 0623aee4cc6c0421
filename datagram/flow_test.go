package datagram

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tunnox-net/tunnox/test/pace"
	"github.com/tunnox-net/tunnox/test/programs"
	"github.com/tunnox-net/tunnox/transport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	_ transport.Prompt      = (*Flow)(nil)
	_ transport.ReadStopper = (*Flow)(nil)
)

// relay is a socket whose flows are joined to flows of a service, as they are over a
// stream, with nothing between.
type relay struct {
	t      *testing.T
	flows  *Flows
	socket *Socket
	counts Counts // of flows to sources
	inner  Counts // of flows to the service
	tasks  sync.WaitGroup
	down   atomic.Bool // new flows are refused

	begun  atomic.Int64
	unseen atomic.Int64 // times the service was said not to be there
}

func newRelay(t *testing.T, network, address, service string, change func(*Config)) *relay {
	t.Helper()
	r := &relay{t: t}
	c := Config{Idle: func() time.Duration { return time.Minute }, Most: 1000, MostPerSource: 1000, Counts: &r.counts}
	c.Carry = func(f *Flow) bool {
		r.begun.Add(1)
		r.tasks.Go(func() { r.carry(f, service) })
		return true
	}
	if change != nil {
		change(&c)
	}
	r.flows = NewFlows(c)
	socket, err := Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	r.socket = socket
	r.tasks.Go(func() { r.flows.Serve(socket, func(err error) { t.Logf("the socket: %v", err) }) })
	t.Cleanup(func() {
		socket.Close()
		r.tasks.Wait()
		if n := r.counts.Open.Load() + r.inner.Open.Load(); n != 0 || r.flows.Len() != 0 || len(r.flows.sources) != 0 {
			t.Errorf("at the end %d flows are counted, %d are there, of %d sources", n, r.flows.Len(), len(r.flows.sources))
		}
	})
	return r
}

func (r *relay) carry(f *Flow, service string) {
	if r.down.Load() {
		r.flows.Refuse(f)
		return
	}
	conn, err := net.Dial("udp", service)
	if err != nil {
		r.flows.Refuse(f)
		return
	}
	to, serve, err := Dial(conn.(*net.UDPConn), &r.inner, func(error) { r.unseen.Add(1) })
	if err != nil {
		r.t.Error(err)
		return
	}
	r.tasks.Go(serve)
	transport.Splice(f, to, transport.Count{})
}

func (r *relay) address() string { return r.socket.LocalAddr().String() }

// echo is a service that sends back what it gets.
func echo(t *testing.T, address string) *net.UDPConn {
	t.Helper()
	conn := programs.EchoUDP(t, address)
	_ = conn.SetReadBuffer(4 << 20)
	return conn
}

func dial(t *testing.T, address string) *net.UDPConn {
	t.Helper()
	conn, err := net.Dial("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(pace.Guard))
	return conn.(*net.UDPConn)
}

// ask sends a datagram and wants it back.
func ask(t *testing.T, conn *net.UDPConn, payload []byte) {
	t.Helper()
	if _, err := conn.Write(payload); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 65536)
	n, err := conn.Read(buf)
	if err != nil || !bytes.Equal(buf[:n], payload) {
		t.Fatalf("%d bytes came back of %d, or others: %v", n, len(payload), err)
	}
}

// Every size goes through in one piece, from nothing to the most that UDP has.
func TestSizes(t *testing.T) {
	r := newRelay(t, "udp4", "127.0.0.1:0", echo(t, "127.0.0.1:0").LocalAddr().String(), nil)
	conn := dial(t, r.address())
	for _, size := range []int{0, 1, 2, 511, 1472, 1473, 2046, 2047, 2048, 16374, 16375, 16376, 16377, 40000, 65506, 65507} {
		payload := make([]byte, size)
		for i := range payload {
			payload[i] = byte(rand.Uint32())
		}
		ask(t, conn, payload)
	}
}

// Pairs of datagrams back to back, of any sizes, from one port and from fifty: none is
// altered, and none changes places with another of its flow (traefik#6796, #12251).
func TestPairsAreNotAltered(t *testing.T) {
	r := newRelay(t, "udp4", "127.0.0.1:0", echo(t, "127.0.0.1:0").LocalAddr().String(), nil)
	var all sync.WaitGroup
	const ports, pairs = 50, 200
	for p := range ports {
		conn := dial(t, r.address())
		all.Go(func() {
			draw := rand.New(rand.NewPCG(uint64(p), 7))
			buf := make([]byte, 65536)
			for i := range pairs {
				var sent [2][]byte
				for j := range sent {
					sent[j] = fmt.Appendf(nil, "%d/%d/%d:", p, i, j)
					for range draw.IntN(1200) {
						sent[j] = append(sent[j], byte(draw.Uint32()))
					}
					if _, err := conn.Write(sent[j]); err != nil {
						t.Error(err)
						return
					}
				}
				for j := range sent {
					n, err := conn.Read(buf)
					if err != nil || !bytes.Equal(buf[:n], sent[j]) {
						t.Errorf("port %d pair %d: %q came back for %q, %v", p, i, buf[:min(n, 20)], sent[j][:min(len(sent[j]), 20)], err)
						return
					}
				}
			}
		})
	}
	all.Wait()
	if n := r.begun.Load(); n != ports {
		t.Errorf("%d flows for %d ports", n, ports)
	}
}

// Who asks at the second address of a machine is answered from there, whatever the
// routes say (traefik#7430).
func TestAnswerLeavesFromWhereItWasAsked(t *testing.T) {
	for network, at := range map[string][]string{
		"udp4": {"127.0.0.1", "127.0.0.2", "127.9.8.7"},
		"udp":  {"127.0.0.1", "127.0.0.2", "::1"},
		"udp6": {"::1"},
	} {
		t.Run(network, func(t *testing.T) {
			wide := map[string]string{"udp4": "0.0.0.0:0", "udp": ":0", "udp6": "[::]:0"}[network]
			r := newRelay(t, network, wide, echo(t, "127.0.0.1:0").LocalAddr().String(), nil)
			for _, address := range at {
				from := "127.0.0.1:0"
				if address == "::1" {
					from = "[::1]:0"
				}
				conn, err := net.ListenPacket("udp", from) // not connected: it takes answers of anybody
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(pace.Guard))
				asked := netip.AddrPortFrom(netip.MustParseAddr(address), r.socket.LocalAddr().Port())
				if _, err := conn.WriteTo([]byte("hello"), net.UDPAddrFromAddrPort(asked)); err != nil {
					t.Fatal(err)
				}
				buf := make([]byte, 100)
				n, by, err := conn.ReadFrom(buf)
				if err != nil || string(buf[:n]) != "hello" || by.String() != asked.String() {
					t.Errorf("asked at %v, %q comes from %v, %v", asked, buf[:n], by, err)
				}
			}
		})
	}
}

// A flow ends when nothing passes for its time, in neither direction; a datagram in
// time keeps it, with the port that the service sees.
func TestIdleFlowEnds(t *testing.T) {
	service := echo(t, "127.0.0.1:0")
	r := newRelay(t, "udp4", "127.0.0.1:0", service.LocalAddr().String(), func(c *Config) { c.Idle = func() time.Duration { return 300 * time.Millisecond } })
	conn := dial(t, r.address())
	for range 4 {
		ask(t, conn, []byte("x"))
		time.Sleep(100 * time.Millisecond) // within the idle time, again and again
	}
	if n := r.begun.Load(); n != 1 {
		t.Logf("the machine was slow: %d flows", n) // a pause became longer than the idle time
	}
	if !pace.Until(5*time.Second, 5*time.Millisecond, func() bool { return r.counts.Open.Load() == 0 }) {
		t.Errorf("%d flows are open long after the last datagram", r.counts.Open.Load())
	}
	before := r.begun.Load()
	ask(t, conn, []byte("y"))
	if n := r.begun.Load() - before; n != 1 {
		t.Errorf("a datagram after the end began %d flows", n)
	}
}

// A service that goes away for a while ends no flow: when it is back, the next datagram
// reaches it from the same port (traefik#7000).
func TestServiceComesBack(t *testing.T) {
	service := echo(t, "127.0.0.1:0")
	address := service.LocalAddr().String()
	r := newRelay(t, "udp4", "127.0.0.1:0", address, nil)
	conn := dial(t, r.address())
	ask(t, conn, []byte("before"))
	service.Close()
	for range 5 {
		if _, err := conn.Write([]byte("lost")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Millisecond)
	}
	if !pace.Until(5*time.Second, time.Millisecond, func() bool { return r.unseen.Load() > 0 }) {
		t.Error("nobody was told that the service is not there")
	}
	echo(t, address)
	ask(t, conn, []byte("after"))
	if n := r.begun.Load(); n != 1 {
		t.Errorf("%d flows, want the one that there was", n)
	}
}

// What is refused is not asked for again with each datagram, and is after a while.
func TestRefusedFlowPauses(t *testing.T) {
	r := newRelay(t, "udp4", "127.0.0.1:0", echo(t, "127.0.0.1:0").LocalAddr().String(), nil)
	r.down.Store(true)
	conn := dial(t, r.address())
	began := time.Now()
	for range 50 {
		if _, err := conn.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond)
	}
	asked := r.begun.Load()
	if most := 1 + int64(time.Since(began)/refusedFor); asked > most {
		t.Errorf("50 datagrams asked %d times, want %d at most", asked, most)
	}
	r.down.Store(false)
	buf := make([]byte, 10)
	if !pace.Until(2*time.Second, time.Millisecond, func() bool {
		_, _ = conn.Write([]byte("y"))
		_ = conn.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		n, err := conn.Read(buf)
		return err == nil && string(buf[:n]) == "y"
	}) {
		t.Error("the flow does not go on within 2 s")
	}
}

// A stream that takes nothing has datagrams dropped and not queued, and the count says
// how many.
func TestDropsRatherThanQueues(t *testing.T) {
	var counts Counts
	f := newFlow(nil, nil, &counts, func([]byte) error { return nil }, func() {})
	payload := make([]byte, 1000)
	for range 1000 {
		f.push(payload)
	}
	kept, dropped := counts.Carried.Load(), counts.Dropped.Load()
	if kept+dropped != 1000 || kept != maxQueued/(prefix+1000) {
		t.Errorf("%d kept and %d dropped of 1000, want %d kept", kept, dropped, maxQueued/(prefix+1000))
	}
	buf := make([]byte, maxQueued)
	n, err := f.ReadNow(buf)
	if err != nil || n != int(kept)*(prefix+1000) || f.queue != nil {
		t.Errorf("%d bytes are read, %v, and %d are held", n, err, cap(f.queue))
	}
	f.push([]byte("last"))
	f.CloseWrite()
	if rest, err := io.ReadAll(f); err != nil || string(rest) != "\x00\x04last" {
		t.Errorf("after the end %q is read, %v", rest, err)
	}
	if _, err := f.Write([]byte{0, 0}); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("a write after the end: %v", err)
	}
}

// One source may have so many flows; one more takes the place of its oldest when that
// is silent, and is dropped when all are in use.
func TestFlowsOfASourceAreBounded(t *testing.T) {
	r := newRelay(t, "udp4", "127.0.0.1:0", echo(t, "127.0.0.1:0").LocalAddr().String(), func(c *Config) { c.MostPerSource = 3 })
	var conns []*net.UDPConn
	for range 3 {
		conn := dial(t, r.address())
		ask(t, conn, []byte("x"))
		conns = append(conns, conn)
	}
	fourth := dial(t, r.address())
	if _, err := fourth.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if !pace.Until(5*time.Second, time.Millisecond, func() bool { return r.counts.Refused.Load() == 1 || r.begun.Load() > 3 }) {
		t.Error("a fourth flow is neither refused nor begun")
	}
	time.Sleep(evictAfter)
	for _, conn := range conns[1:] {
		ask(t, conn, []byte("still"))
	}
	ask(t, fourth, []byte("y"))
	if n := r.flows.Len(); n != 3 {
		t.Errorf("%d flows are there, want 3", n)
	}
	for _, conn := range conns[1:] {
		ask(t, conn, []byte("and on"))
	}
}

// Forged sources draw no more than the budget beyond what was sent in their name; a
// first answer may be 30 times the question, and who keeps talking gets all there is.
func TestForgedSourcesDrawNoMoreThanTheBudget(t *testing.T) {
	answer := make([]byte, 1200)
	service, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 100)
		for {
			_, from, err := service.ReadFromUDPAddrPort(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			for range 10 { // a service that answers ten times
				_, _ = service.WriteToUDPAddrPort(answer, from)
			}
		}
	}()
	t.Cleanup(func() { service.Close(); <-done })
	r := newRelay(t, "udp4", "127.0.0.1:0", service.LocalAddr().String(), func(c *Config) { c.Budget = NewBudget() })
	began := time.Now()
	const sources = 250
	for i := range sources { // each would draw 12,000 bytes for 40
		conn, err := net.DialUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 1, byte(i/250), byte(i%250+1))}, net.UDPAddrFromAddrPort(r.socket.LocalAddr()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		if _, err := conn.Write(make([]byte, 40)); err != nil {
			t.Fatal(err)
		}
		if i > 0 {
			continue
		}
		first := make([]byte, 2000) // before the others use the budget up
		_ = conn.SetReadDeadline(time.Now().Add(pace.Guard))
		if n, err := conn.Read(first); err != nil || n != len(answer) {
			t.Errorf("the first source gets %d bytes for 40, %v, want %d", n, err, len(answer))
		}
	}
	answers := func() int64 { return r.counts.Carried.Load() - sources } // one question each
	if !pace.Until(10*time.Second, 5*time.Millisecond, func() bool { return answers()+r.counts.Spared.Load() >= 10*sources }) {
		t.Logf("%d answers came, %d were spared, %d dropped, want %d: the system has lost some", answers(), r.counts.Spared.Load(), r.counts.Dropped.Load(), 10*sources)
	}
	sent := int(answers()) * len(answer)
	if most := BudgetBurst + int(time.Since(began).Seconds()*BudgetRate) + sources*40; sent > most {
		t.Errorf("forged sources drew %d bytes, want %d at most", sent, most)
	}
	if r.counts.Spared.Load() == 0 {
		t.Error("nothing was spared: the budget was not used up")
	}
}

// A source that goes on talking behind the answers is believed, and then the budget is
// not its business.
func TestAConversationIsBelieved(t *testing.T) {
	b := NewBudget()
	b.excess.AllowN(time.Now(), BudgetBurst) // others have used it up
	s := &source{since: clock() - int64(believedAfter)}
	for range believedRounds {
		s.hears(100)
		if !b.draws(s, 100) {
			t.Fatal("an answer as large as the question is not sent")
		}
	}
	if s.hears(100); !b.draws(s, 50_000) {
		t.Error("a source that converses for two seconds gets no large answer")
	}
	blind := &source{since: clock() - int64(time.Hour)}
	for range 1000 {
		blind.hears(40) // and never behind an answer
	}
	if b.draws(blind, 100_000) {
		t.Error("a source that only sends is believed")
	}
}
