package forwarder_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/agent"
	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/test/pace"
	"github.com/tunnox-net/tunnox/transport"
	"github.com/tunnox-net/tunnox/wire"
	"github.com/tunnox-net/tunnox/wire/wirepb"
)

// laned is a world with two agents that have keys, over TLS, and a mapping between them
// that is encrypted from end to end.
func laned(t *testing.T, service string) (*world, *keyring, mapping) {
	t.Helper()
	w, keys := newWorld(t, "tls"), newKeyring()
	source, target := w.client(w.user), w.client(w.user)
	w.agent(target, keys.with(t, target))
	w.agent(source, keys.with(t, source))
	m := w.mapping(source, target, service)
	w.sealed(m)
	w.listening(m)
	return w, keys, m
}

// joined waits until so many pairs of lanes have been joined.
func (w *world) joined(pairs int) {
	w.t.Helper()
	eventually(w.t, "lanes are joined", func() bool { return w.metric("tunnox_lanes_total", "outcome", "joined") >= float64(pairs) })
}

// carry sends bytes through a connection to an echo, and wants them back.
func carry(conn net.Conn, size int) error {
	text := make([]byte, size)
	_, _ = rand.Read(text)
	failed := make(chan error, 1)
	go func() {
		_, err := conn.Write(text)
		failed <- err
	}()
	got := make([]byte, size)
	if _, err := io.ReadFull(conn, got); err != nil {
		return err
	}
	if !bytes.Equal(got, text) {
		return io.ErrNoProgress
	}
	return <-failed
}

// The bulk of a stream that is encrypted from end to end goes over lanes, and counts as
// it does without.
func TestBulkGoesOverLanes(t *testing.T) {
	w, _, m := laned(t, echo(t))
	conn := connect(t, m.address)
	if err := carry(conn, 1<<20); err != nil {
		t.Fatal(err)
	}
	w.joined(1)
	if got := w.metric("tunnox_lanes", "state", "joined"); got != 2 {
		t.Errorf("%v lanes are joined", got)
	}
	for range 4 {
		if err := carry(conn, 4<<20); err != nil {
			t.Fatal(err)
		}
	}
	before := w.metric("tunnox_bytes_transferred_total", "direction", "to_target")
	if err := carry(conn, 4<<20); err != nil {
		t.Fatal(err)
	}
	if got := w.metric("tunnox_bytes_transferred_total", "direction", "to_target") - before; got < 4<<20 || got > 4<<20*1.02 {
		t.Errorf("4 MiB count as %v", got)
	}
	_ = conn.CloseWrite()
	if n, err := io.Copy(io.Discard, conn); n != 0 || err != nil {
		t.Errorf("%d bytes behind the end, %v", n, err)
	}
	eventually(t, "the lanes end", func() bool { return w.metric("tunnox_lanes", "state", "joined") == 0 })
	eventually(t, "the stream ends", func() bool { return w.metric("tunnox_streams_active") == 0 })
}

// sockets keeps the connections that an agent makes, its session first.
type sockets struct {
	mu   sync.Mutex
	all  []*net.TCPConn
	most int // further ones are refused; 0: none is
}

// with has an agent of a world dial so that its connections are kept.
func (s *sockets) with(w *world) func(*agent.Config) {
	return func(cfg *agent.Config) {
		cfg.Sessions = 1
		cfg.Dial = func(ctx context.Context, _ string) (transport.Session, error) {
			address := w.current().listener.(*transport.TLSListener).Addr().String()
			return transport.DialTLS(ctx, address, transport.DialConfig{Pins: []transport.Pin{pin(w.t)}, Dial: s.dial})
		}
	}
}

func (s *sockets) dial(ctx context.Context, network, address string) (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.most > 0 && len(s.all) >= s.most {
		return nil, errors.New("a firewall")
	}
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err == nil {
		s.all = append(s.all, conn.(*net.TCPConn))
	}
	return conn, err
}

// cut resets all connections but the session's.
func (s *sockets) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.all[1:] {
		_ = c.SetLinger(0)
		_ = c.Close()
	}
}

// moved is a connection through a mapping that goes over lanes, with an endless
// conversation on it. It returns how the conversation ended.
func moved(w *world, m mapping) (conn *net.TCPConn, ended chan error) {
	w.t.Helper()
	conn, ended = connect(w.t, m.address), make(chan error, 1)
	before := w.metric("tunnox_lanes_total", "outcome", "joined")
	if err := carry(conn, 1<<20); err != nil {
		w.t.Fatal(err)
	}
	w.joined(int(before) + 1)
	if err := carry(conn, 1<<20); err != nil { // over the lanes
		w.t.Fatal(err)
	}
	go func() {
		for {
			if err := carry(conn, 64<<10); err != nil {
				ended <- err
				return
			}
		}
	}()
	return conn, ended
}

// endsSoon wants a conversation to be reset within a second, on a machine that has time.
func endsSoon(t *testing.T, what string, ended chan error) {
	t.Helper()
	began := time.Now()
	select {
	case err := <-ended:
		if !isReset(err) {
			t.Errorf("%s: it ended with %v", what, err)
		}
		t.Logf("%s: it ended after %v", what, time.Since(began))
	case <-time.After(pace.Guard):
		t.Fatalf("%s: it goes on", what)
	}
}

// What ends a stream ends its lanes: a mapping that is deleted or disabled, a client that
// is revoked, an agent that ends, a lane that dies.
func TestLanesEndWithTheirStream(t *testing.T) {
	for name, end := range map[string]func(w *world, m mapping, source, target client, agents [2]*running, s *sockets){
		"mapping deleted": func(w *world, m mapping, _, _ client, _ [2]*running, _ *sockets) {
			w.plane.do(w.t, domain.DeleteMapping{ID: m.id})
		},
		"credential rotated": func(w *world, _ mapping, _, target client, _ [2]*running, _ *sockets) {
			fresh, err := wire.NewCredential()
			if err != nil {
				w.t.Fatal(err)
			}
			w.plane.do(w.t, domain.RotateCredential{ID: target.id, PublicKey: fresh.PublicKey()})
		},
		"target agent ends": func(w *world, _ mapping, _, _ client, agents [2]*running, _ *sockets) { _ = agents[1].stop() },
		"lane dies":         func(_ *world, _ mapping, _, _ client, _ [2]*running, s *sockets) { s.cut() },
	} {
		t.Run(name, func(t *testing.T) {
			w, keys, s := newWorld(t, "tls"), newKeyring(), &sockets{}
			source, target := w.client(w.user), w.client(w.user)
			agents := [2]*running{w.agent(source, keys.with(t, source), s.with(w)), w.agent(target, keys.with(t, target))}
			m := w.mapping(source, target, echo(t))
			w.sealed(m)
			w.listening(m)
			_, ended := moved(w, m)
			end(w, m, source, target, agents, s)
			endsSoon(t, name, ended)
			eventually(t, "no lanes are joined", func() bool { return w.metric("tunnox_lanes", "state", "joined") == 0 })
			eventually(t, "no stream is left", func() bool { return w.metric("tunnox_streams_active") == 0 })
		})
	}
}

// A stream for which no lane can be had stays in its session: a firewall lets one
// connection through, an agent is not to make lanes, the payer has a limit of bandwidth.
func TestWithoutALaneAStreamGoesOn(t *testing.T) {
	for name, tt := range map[string]struct {
		limits  domain.Limits
		sockets *sockets
		change  func(*agent.Config)
	}{
		"firewall": {sockets: &sockets{most: 1}},
		"not told": {change: func(cfg *agent.Config) { cfg.NoLanes = true }},
		"limit":    {limits: domain.Limits{TotalBandwidthLimit: ptr(int64(1 << 30))}},
	} {
		t.Run(name, func(t *testing.T) {
			w, keys := newWorld(t, "tls"), newKeyring()
			w.user = w.newUser(tt.limits)
			source, target := w.client(w.user), w.client(w.user)
			changes := []func(*agent.Config){keys.with(t, source)}
			if tt.sockets != nil {
				changes = append(changes, tt.sockets.with(w))
			}
			if tt.change != nil {
				changes = append(changes, tt.change)
			}
			w.agent(source, changes...)
			w.agent(target, keys.with(t, target))
			m := w.mapping(source, target, echo(t))
			w.sealed(m)
			w.listening(m)
			conn := connect(t, m.address)
			for range 3 {
				if err := carry(conn, 2<<20); err != nil {
					t.Fatal(err)
				}
			}
			if name == "limit" {
				eventually(t, "the agent has asked", func() bool { return w.metric("tunnox_lanes_total", "outcome", "unavailable") > 0 })
			}
			if n := w.metric("tunnox_lanes_total", "outcome", "joined"); n > 0 {
				t.Errorf("%v pairs of lanes were joined", n)
			}
			if err := carry(conn, 1<<20); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// A limit of bandwidth that comes later holds lanes back too, and a limit that has gone
// does not.
func TestLanesObeyTheBrake(t *testing.T) {
	w, _, m := laned(t, echo(t))
	conn, ended := moved(w, m)
	rate := func() float64 {
		before, began := w.metric("tunnox_bytes_transferred_total", "direction", "to_target"), time.Now()
		time.Sleep(300 * time.Millisecond) // what is measured is a rate
		return (w.metric("tunnox_bytes_transferred_total", "direction", "to_target") - before) / time.Since(began).Seconds()
	}
	const limit = 1 << 20 // of both directions together
	w.plane.do(t, domain.SetQuota{ID: w.user, Limits: domain.Limits{TotalBandwidthLimit: ptr(int64(limit))}})
	eventually(t, "the lanes are slow", func() bool { return rate() < limit })
	w.plane.do(t, domain.SetQuota{ID: w.user, Limits: domain.Limits{}})
	eventually(t, "the lanes are fast again", func() bool { return rate() > 2*limit })
	_ = conn.Close()
	<-ended
}

// byHand is an agent that does with lanes what it likes.
func (w *world) byHand(t *testing.T, c client) *stranger {
	t.Helper()
	h := w.knock(t)
	if r := h.hello(t, c.credential, func(m *wirepb.Hello) {
		m.ClientId, m.Instance, m.Protocols = c.id, rand.Text(), []string{"tcp", "seal-1", "lane-1"}
	}); r != nil {
		t.Fatal(r)
	}
	if len(h.welcome.GetLaneKey()) != wire.LaneKeySize {
		t.Fatal("there is no key for lanes")
	}
	return h
}

// lane begins a lane and says hello.
func (h *stranger) lane(t *testing.T, hello *wirepb.LaneHello, change func(*transport.LaneCall)) (*transport.LaneCall, uint64, error) {
	t.Helper()
	call, err := transport.DialLane(t.Context(), h.link)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = call.Close() })
	_ = call.SetDeadline(time.Now().Add(pace.Guard))
	if hello.Proof == nil {
		hello.Proof = wire.LaneProof(h.welcome.GetLaneKey(), call.Binding())
	}
	if err := wire.WriteLaneHello(call, hello); err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(call)
	}
	id, err := wire.ReadLaneParked(call)
	return call, id, err
}

// promote asks for lanes and gives the answer.
func (h *stranger) promote(t *testing.T, ticket, lane uint64) error {
	t.Helper()
	return h.openWith(t, &wirepb.Open{Promote: &wirepb.Promote{Ticket: ticket, Lane: lane}})
}

// Nobody gets a lane that is not of a session of its own, and nobody gets at a stream that
// is not its own.
func TestLanesOfOthersAreRefused(t *testing.T) {
	w, _, m := laned(t, echo(t))
	_, ended := moved(w, m)

	one, two := w.byHand(t, w.client(w.user)), w.byHand(t, w.client(w.newUser(domain.Limits{})))
	session := one.welcome.GetSession()
	for name, hello := range map[string]*wirepb.LaneHello{
		"a wrong proof":       {Session: session, Proof: make([]byte, 32)},
		"no proof":            {Session: session, Proof: []byte{}},
		"no session":          {Session: "none"},
		"another's session":   {Session: two.welcome.GetSession()},
		"of another's lane":   {Session: session, Proof: wire.LaneProof(one.welcome.GetLaneKey(), make([]byte, 32))},
		"a session with none": {Session: ""},
	} {
		if _, id, err := one.lane(t, hello, nil); err == nil {
			t.Errorf("%s: parked as %d", name, id)
		}
	}

	_, mine, err := one.lane(t, &wirepb.LaneHello{Session: session}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, p := range map[string]*wirepb.Promote{
		"another's lane":   {Ticket: 1, Lane: mine + 1},
		"another's ticket": {Ticket: 1, Lane: mine}, // takes the lane away
		"a lane twice":     {Ticket: 1, Lane: mine},
		"nothing":          {},
	} {
		if err := one.promote(t, p.Ticket, p.Lane); wire.CodeOf(err) != wire.LaneUnavailable {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := two.promote(t, 1, mine); wire.CodeOf(err) != wire.LaneUnavailable {
		t.Errorf("a lane of another client: %v", err)
	}

	// A lane that sends before it is joined is not used.
	early, id, err := one.lane(t, &wirepb.LaneHello{Session: session}, nil)
	if err != nil {
		t.Fatal(err)
	}
	bare, err := early.Bare()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bare.Write([]byte("too early")); err != nil {
		t.Fatal(err)
	}
	if err := one.promote(t, 1, id); wire.CodeOf(err) != wire.LaneUnavailable {
		t.Errorf("a lane that sends: %v", err)
	}
	_, _, err = one.lane(t, &wirepb.LaneHello{Session: session}, func(call *transport.LaneCall) {
		_, _ = call.NetConn().Write([]byte("behind the hello"))
	})
	if err == nil {
		t.Log("bytes behind the hello came too late to be refused with it")
	}
	select {
	case err := <-ended:
		t.Errorf("the stream of others has ended: %v", err)
	default:
	}
}

// A session parks a few lanes and no more, and they end with it.
func TestParkedLanesAreBounded(t *testing.T) {
	w := newWorld(t, "tls")
	h := w.byHand(t, w.client(w.user))
	refused := 0
	for range 20 {
		if _, _, err := h.lane(t, &wirepb.LaneHello{Session: h.welcome.GetSession()}, nil); wire.CodeOf(err) == wire.LaneUnavailable {
			refused++
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if n := w.metric("tunnox_lanes", "state", "parked"); n != 16 || refused != 4 {
		t.Errorf("%v lanes are parked, %d were refused", n, refused)
	}
	_ = h.link.Close()
	eventually(t, "no lane is parked", func() bool { return w.metric("tunnox_lanes", "state", "parked") == 0 })
	if _, _, err := h.lane(t, &wirepb.LaneHello{Session: h.welcome.GetSession()}, nil); err == nil {
		t.Error("a session that has ended got a lane")
	}
}

// keptPipes is how many descriptors of empty pipes the process keeps for the next splice.
const keptPipes = 64

// Many streams that move, or not, and end in every way there is, leave nothing behind.
func TestLanesLeaveNothingBehind(t *testing.T) {
	n := 400
	if asked, err := strconv.Atoi(os.Getenv("TUNNOX_TEST_STREAMS")); err == nil {
		n = asked
	} else if testing.Short() || pace.Race {
		n = 100
	}
	w, _, m := laned(t, echo(t))
	churn := func(n int) {
		var running sync.WaitGroup
		slots := make(chan struct{}, 32)
		for i := range n {
			slots <- struct{}{}
			running.Go(func() {
				defer func() { <-slots }()
				conn := connect(t, m.address)
				defer conn.Close()
				_ = carry(conn, []int{10, 300 << 10, 1 << 20, 4 << 20}[i%4]) // a lane that is refused a place is none of this test
				switch i % 3 {
				case 0:
					_ = conn.SetLinger(0)
				case 1:
					_ = conn.CloseWrite()
					_, _ = io.Copy(io.Discard, conn)
				case 2: // bytes are under way
					go func() { _, _ = conn.Write(make([]byte, 1<<20)) }()
					_, _ = io.CopyN(io.Discard, conn, 100<<10)
				}
			})
		}
		running.Wait()
		eventually(t, "all streams end", func() bool {
			return w.metric("tunnox_streams_active") == 0 && w.metric("tunnox_lanes", "state", "joined") == 0
		})
	}
	churn(64)
	before := used(t)
	churn(n)
	var after usage
	if !pace.Until(15*time.Second, 50*time.Millisecond, func() bool {
		after = used(t)
		return after.goroutines <= before.goroutines+8 && after.descriptors <= before.descriptors+8+keptPipes
	}) {
		t.Errorf("%+v before, %+v after %d streams", before, after, n)
	}
	t.Logf("%v pairs of lanes for %d streams; %+v before, %+v after", w.metric("tunnox_lanes_total", "outcome", "joined"), n, before, after)
}
