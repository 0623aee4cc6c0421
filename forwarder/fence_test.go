package forwarder_test

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/agent"
	"github.com/tunnox-net/tunnox/directory"
	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/test/pace"
	"github.com/tunnox-net/tunnox/transport"
	"github.com/tunnox-net/tunnox/wire"
	"github.com/tunnox-net/tunnox/wire/wirepb"
)

// A second agent with the same client id takes over; the first is told so and
// does not come back. The mapping works through the second.
func TestNewerInstanceFencesTheOlder(t *testing.T) {
	over(t, func(t *testing.T, w *world) {
		source, target := w.client(w.user), w.client(w.user)
		w.agent(target)
		first := w.agent(source)
		m := w.mapping(source, target, echo(t))
		w.listening(m)
		conn := connect(t, m.address)
		if err := roundTrip(conn, "x"); err != nil {
			t.Fatal(err)
		}
		w.agent(source)
		first.fenced(t, "127.0.0.1:|memory", "version test")
		if _, err := conn.Read(make([]byte, 1)); !isReset(err) {
			t.Errorf("the live stream of the first got %v, want a reset", err)
		}
		eventually(t, "the second serves the mapping", func() bool { return works(m.address) })
	})
}

// Two agents with one identity that are started again and again, by whatever keeps
// them running, do not take turns for ever: after a few times the one that is there
// stays.
func TestAgentsOfOneIdentityDoNotTakeTurns(t *testing.T) {
	over(t, func(t *testing.T, w *world) {
		c := w.client(w.user)
		last := w.agent(c)
		for range 4 {
			next := w.agent(c)
			last.fenced(t)
			last.stop()
			last = next
		}
		w.launch(c).fenced(t)
		if last.Status().Fenced != nil || !last.Status().Online {
			t.Errorf("the one that was there is %+v", last.Status())
		}
		w.agent(w.client(w.user)) // another client is not concerned
	})
}

// An agent that was fenced comes back when the other one has gone.
func TestAFencedAgentIsToldThatTheOtherHasGone(t *testing.T) {
	over(t, func(t *testing.T, w *world) {
		c := w.client(w.user)
		older := w.agent(c)
		instance := w.session(c)
		newer := w.agent(c)
		older.fenced(t)
		if refusal := w.refusal(c, instance.Instance); !refusal.Permanent || !strings.Contains(refusal.Message, "it is at ") {
			t.Errorf("while the other is there it is told %+v", refusal)
		}
		newer.stop()
		eventually(t, "it is told that the other has gone", func() bool { return !w.refusal(c, instance.Instance).Permanent })
	})
}

// refusal logs in as an instance of a client's agent and gives what that is refused with.
func (w *world) refusal(c client, instance string) *wire.Refusal {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	link, err := w.dial(ctx, "")
	if err != nil {
		w.t.Fatal(err)
	}
	defer link.Close()
	control, err := link.Accept(ctx)
	if err != nil {
		w.t.Fatal(err)
	}
	m, err := wire.ReadControl(control, wire.MaxHandshake)
	if err != nil {
		w.t.Fatal(err)
	}
	signature, err := c.credential.Sign(wire.Proof{Version: 1, Nonce: m.GetChallenge().GetNonce(), Binding: link.Binding(), ClientID: c.id, Instance: instance})
	if err != nil {
		w.t.Fatal(err)
	}
	hello := &wirepb.Hello{Version: 1, ClientId: c.id, Instance: instance, AgentVersion: "test", Signature: signature}
	if err := wire.WriteControl(control, &wirepb.Control{Message: &wirepb.Control_Hello{Hello: hello}}); err != nil {
		w.t.Fatal(err)
	}
	if m, err = wire.ReadControl(control, wire.MaxHandshake); err != nil {
		w.t.Fatal(err)
	}
	if m.GetRefused() == nil {
		w.t.Fatalf("got %v, want a refusal", m)
	}
	return wire.RefusalFrom(m.GetRefused())
}

// The same, when the newer session is at another node: the directory tells.
func TestFencedFromElsewhere(t *testing.T) {
	over(t, func(t *testing.T, w *world) {
		c := w.client(w.user)
		r := w.agent(c)
		elsewhere := directory.Session{ClientID: c.id, Node: "node-002", Run: "r", Session: "s", Instance: "another", Address: "192.0.2.7:1"}
		if _, err := w.presences.Beat(context.Background(), "node-002", "r"); err != nil {
			t.Fatal(err)
		}
		if _, err := w.presences.Register(context.Background(), elsewhere); err != nil {
			t.Fatal(err)
		}
		r.fenced(t, "192.0.2.7:1")
		// The late clean-up of the older has not removed the newer.
		if s, ok := w.presences.of(c.id); !ok || s.Node != "node-002" {
			t.Errorf("the directory has %v, %v", s, ok)
		}
	})
}

// An agent whose link broke without a word comes back on a new one while its old
// session still looks alive: it is not locked out and not told that it was
// superseded, and the old session's end takes nothing from the new one.
func TestSameInstanceReplacesItself(t *testing.T) {
	over(t, func(t *testing.T, w *world) {
		c := w.client(w.user)
		links := make(chan transport.Session, 10)
		lost := make(chan struct{}, 10)
		r := w.agent(c, func(cfg *agent.Config) {
			cfg.Dial = func(ctx context.Context, server string) (transport.Session, error) {
				link, err := w.dial(ctx, server)
				if err == nil {
					links <- link
					link = &leaky{Session: link, lost: lost}
					t.Cleanup(func() { link.(*leaky).Session.Close() })
				}
				return link, err
			}
		})
		before := w.session(c)
		lost <- struct{}{} // the agent believes that its link is gone; the forwarder hears nothing
		eventually(t, "the agent is back", func() bool {
			now, ok := w.presences.of(c.id)
			return ok && now.Session != before.Session
		})
		gone(t, <-links)
		m := w.mapping(c, c, echo(t))
		w.listening(m)
		if err := roundTrip(connect(t, m.address), "x"); err != nil {
			t.Fatal(err)
		}
		select {
		case <-r.done:
			t.Errorf("the agent ended: %v", r.err)
		default:
		}
		if n := w.metric("tunnox_clients_online"); n != 1 {
			t.Errorf("%v clients are online, want 1", n)
		}
	})
}

// leaky is a session that one end gives up without the other noticing.
type leaky struct {
	transport.Session
	lost   chan struct{}
	closed atomic.Bool
	watch  sync.Once
}

// Accept gives the control stream, and makes it fall silent when lost says so.
func (l *leaky) Accept(ctx context.Context) (transport.Stream, error) {
	stream, err := l.Session.Accept(ctx)
	if err == nil {
		l.watch.Do(func() { go l.silence(stream) })
	}
	return stream, err
}

func (l *leaky) silence(stream transport.Stream) {
	select {
	case <-l.lost:
	case <-l.Done():
		return
	}
	for !l.closed.Load() {
		stream.SetReadDeadline(time.Unix(1, 0))
		time.Sleep(time.Millisecond)
	}
}

func (l *leaky) Close() error { l.closed.Store(true); return nil }

// A forwarder that restarts has its agents back by themselves, and streams flow.
func TestAgentsComeBackAfterARestart(t *testing.T) {
	over(t, func(t *testing.T, w *world) {
		_, _, m := w.pair(echo(t))
		watch := pace.Measure(t)
		for range 3 {
			w.current().stop()
			if works(m.address) {
				t.Error("a connection was carried without a forwarder")
			}
			began := time.Now()
			w.start()
			eventually(t, "it works again", func() bool { return works(m.address) })
			if d := time.Since(began); d > watch.Allow(5*time.Second) {
				t.Errorf("that took %v", d)
			}
		}
	})
}

// Draining: no new sessions, no new streams, live ones go on to their end.
func TestDrainLetsStreamsEnd(t *testing.T) {
	over(t, func(t *testing.T, w *world) {
		_, _, m := w.pair(echo(t))
		conn := connect(t, m.address)
		if err := roundTrip(conn, "before"); err != nil {
			t.Fatal(err)
		}
		drained := make(chan error, 1)
		go func() { drained <- w.current().Drain(context.Background()) }()
		eventually(t, "the agent has heard of it", func() bool {
			late := connect(t, m.address)
			defer late.Close()
			late.SetDeadline(time.Now().Add(200 * time.Millisecond))
			return roundTrip(late, "too late") != nil // it waits for a forwarder that takes it
		})
		if err := roundTrip(conn, "meanwhile"); err != nil {
			t.Fatalf("the live stream: %v", err)
		}
		select {
		case err := <-drained:
			t.Fatalf("drained with a live stream: %v", err)
		default:
		}
		h := w.knock(t)
		newcomer := w.client(w.user)
		if r := h.hello(t, newcomer.credential, hello(newcomer)); r == nil || r.Code != wire.NodeDraining || r.Permanent {
			t.Errorf("a newcomer got %v", r)
		}
		conn.Close()
		select {
		case err := <-drained:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(pace.Guard):
			t.Error("not drained when the last stream has ended")
		}
	})
}

// A gap in the feed: what happened in it is found out by looking everybody up.
func TestGapInTheFeed(t *testing.T) {
	over(t, func(t *testing.T, w *world) {
		source, target, kept := w.pair(echo(t))
		deleted := w.mapping(source, target, echo(t))
		w.listening(deleted)
		live := connect(t, deleted.address)
		if err := roundTrip(live, "x"); err != nil {
			t.Fatal(err)
		}
		service := greet(t, "new")
		w.plane.halt() // and what comes now is never fed
		w.plane.do(t, domain.DeleteMapping{ID: deleted.id})
		created := w.mapping(source, target, service)
		w.plane.trim()
		w.closed(deleted)
		w.listening(created)
		if _, err := live.Read(make([]byte, 1)); !isReset(err) {
			t.Errorf("the live stream got %v, want a reset", err)
		}
		if got, err := heard(created.address); got != "new" {
			t.Errorf("got %q, %v", got, err)
		}
		if !works(kept.address) {
			t.Error("the mapping that nothing happened to does not work")
		}
		if w.metric("tunnox_forwarder_gaps_total") == 0 {
			t.Error("the gap was not counted")
		}
		w.plane.do(t, domain.DeleteMapping{ID: kept.id})
		w.closed(kept)
	})
}

// A read model that lags behind the feed: the view is brought to the present
// from the feed's recent records.
func TestLoginWithALaggingReadModel(t *testing.T) {
	over(t, func(t *testing.T, w *world) {
		source, target := w.client(w.user), w.client(w.user)
		w.agent(target)
		w.plane.mu.Lock()
		w.plane.hidden = domain.Position(len(w.plane.records))
		w.plane.mu.Unlock()
		stays, goes := w.mapping(source, target, echo(t)), w.mapping(source, target, echo(t))
		w.plane.do(t, domain.DeleteMapping{ID: goes.id})
		eventually(t, "the feed is applied", func() bool { return w.metric("tunnox_forwarder_position") == float64(len(w.plane.records)) })
		w.agent(source)
		w.listening(stays)
		if !works(stays.address) {
			t.Error("it does not work")
		}
		if socketOf(t, goes.address) != "" {
			t.Error("a deleted mapping came back")
		}
	})
}

// While the read model is away, what works keeps working, and logins wait.
func TestReadModelAway(t *testing.T) {
	over(t, func(t *testing.T, w *world) {
		_, _, m := w.pair(echo(t))
		w.plane.away.Store(true)
		if !works(m.address) {
			t.Error("it does not work")
		}
		c := w.client(w.user)
		h := w.knock(t)
		if r := h.hello(t, c.credential, hello(c)); r == nil || r.Permanent || r.RetryAfter == 0 {
			t.Errorf("a newcomer got %v", r)
		}
		waiting := w.launch(c)
		w.plane.away.Store(false)
		eventually(t, "the newcomer is in", func() bool { _, ok := w.presences.of(c.id); return ok })
		select {
		case <-waiting.done:
			t.Errorf("the agent ended: %v", waiting.err)
		default:
		}
	})
}

func hello(c client) func(*wirepb.Hello) { return func(m *wirepb.Hello) { m.ClientId = c.id } }
