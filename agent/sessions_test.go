package agent

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tunnox-net/tunnox/test/pace"
	"github.com/tunnox-net/tunnox/transport"
	"github.com/tunnox-net/tunnox/wire"
	"github.com/tunnox-net/tunnox/wire/wirepb"
)

// at is where a scripted agent goes: each address leads to a node of its own.
func at(s *script, nodes map[string]*transport.MemoryListener) func(*Config) {
	return func(c *Config) {
		c.Servers = []string{"a:1"}
		nodes["a:1"] = s.listener
		for _, address := range []string{"b:1", "c:1"} {
			nodes[address] = transport.ListenMemory()
			s.t.Cleanup(func() { nodes[address].Close() })
		}
		c.Dial = func(ctx context.Context, server string) (transport.Session, error) {
			link, err := nodes[server].Dial(ctx)
			if err == nil && s.mute && server == "a:1" {
				link = mute{link}
			}
			return link, err
		}
	}
}

var three = []*wirepb.Forwarder{{Node: "a", Address: "a:1"}, {Node: "b", Address: "b:1"}, {Node: "c", Address: "c:1"}}

// second is another forwarder of the same agent.
func (s *script) second(listener *transport.MemoryListener, node string) *script {
	s.t.Helper()
	o := &script{t: s.t, agent: s.agent, listener: listener}
	hello := o.knocked()
	if !slices.Equal(hello.Nodes, []string{"a"}) {
		s.t.Errorf("the agent says that it is at %v", hello.Nodes)
	}
	o.send(&wirepb.Control{Message: &wirepb.Control_Welcome{Welcome: &wirepb.Welcome{Version: 1, ClientId: hello.ClientId,
		Session: "s", Node: node, PingSeconds: 1, DeadSeconds: 3, Forwarders: three}}})
	return o
}

// pair is an agent with two sessions, each at a scripted forwarder.
func pair(t *testing.T) (a, b *script) { return pairWith(t, false) }

// pairWith may make the first forwarder one that answers no ping.
func pairWith(t *testing.T, mute bool) (a, b *script) {
	nodes := map[string]*transport.MemoryListener{}
	a = newScriptAt(t, "a", three, func(s *script) func(*Config) {
		s.mute = mute
		return at(s, nodes)
	})
	return a, a.second(nodes["b:1"], "b")
}

// Each session assigns the whole configuration, each at its own pace: the newest
// is right, an equal one restarts nothing, and an older one is answered with what
// the agent runs.
func TestNewestConfigurationWins(t *testing.T) {
	a, b := pair(t)
	one, two := free(t), free(t)
	if got := a.assign(&wirepb.Assign{Version: 10, Full: true, Listeners: []*wirepb.Listener{tcp(1, one), tcp(2, two)}}); got != "10" {
		t.Fatalf("acknowledged %q", got)
	}
	socket := a.agent.listeners.socket(1)
	if got := b.assign(&wirepb.Assign{Version: 8, Full: true, Listeners: []*wirepb.Listener{tcp(1, one)}}); got != "10" {
		t.Errorf("an older configuration is acknowledged as %q", got)
	}
	if a.agent.listeners.socket(2) == nil {
		t.Error("an older configuration has closed a listener")
	}
	if got := b.assign(&wirepb.Assign{Version: 10, Listeners: []*wirepb.Listener{tcp(2, two)}}); got != "10" {
		t.Errorf("acknowledged %q", got)
	}
	if a.agent.listeners.socket(1) != socket {
		t.Error("an equal configuration has restarted a listener")
	}
	if got := b.assign(&wirepb.Assign{Version: 12, Withdraw: []int64{2}}); got != "12" {
		t.Errorf("acknowledged %q", got)
	}
	if a.agent.listeners.socket(2) != nil {
		t.Error("a newer configuration has not closed a listener")
	}
	// The first is behind now, in the same steps.
	if got := a.assign(&wirepb.Assign{Version: 11, Listeners: []*wirepb.Listener{tcp(3, free(t))}}); got != "12" {
		t.Errorf("acknowledged %q", got)
	}
	if a.agent.listeners.socket(3) != nil {
		t.Error("an older change was applied")
	}
	a.link.Close()
	b.through(one)
}

func (ls *listeners) socket(id int64) net.Listener {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if l := ls.open[id]; l != nil {
		return l.socket.(tcpSocket)
	}
	return nil
}

// A log that was restored from a backup counts from lower again. The next session
// that is the only one says what is right.
func TestRestoredLogIsBelieved(t *testing.T) {
	s := newScript(t)
	old, restored := free(t), free(t)
	s.assign(&wirepb.Assign{Version: 1000, Full: true, Listeners: []*wirepb.Listener{tcp(1, old)}})
	s.link.Close()
	s.welcome(600000001)
	if got := s.assign(&wirepb.Assign{Version: 500, Full: true, Listeners: []*wirepb.Listener{tcp(2, restored)}}); got != "500" {
		t.Errorf("acknowledged %q", got)
	}
	s.through(restored)
}

// A stream that no service has heard of is opened over the other session; a real
// refusal is one.
func TestStreamsMoveToTheOtherSession(t *testing.T) {
	a, b := pair(t)
	address := free(t)
	a.assign(&wirepb.Assign{Version: 1, Full: true, Listeners: []*wirepb.Listener{tcp(1, address)}})
	for what, fail := range map[string]func(transport.Stream){
		"draining": func(stream transport.Stream) {
			if err := wire.WriteOpened(stream, wire.NodeDraining); err != nil {
				t.Error(err)
			}
		},
		"reset": func(stream transport.Stream) { stream.Reset() },
	} {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(pace.Guard))
		fail(a.next())
		second := b.next()
		if err := wire.WriteOpened(second, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(second, "hi"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(conn, make([]byte, 2)); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(pace.Guard))
	if err := wire.WriteOpened(a.next(), wire.Refuse(wire.DialRefused)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("a refused connection got %v", err)
	}
}

// next gives the agent's next stream behind its Open.
func (s *script) next() transport.Stream {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), pace.Guard)
	defer cancel()
	stream, err := s.link.Accept(ctx)
	if err != nil {
		s.t.Fatal(err)
	}
	if _, err := wire.ReadOpen(stream); err != nil {
		s.t.Fatal(err)
	}
	return stream
}

// A forwarder that does not even answer a ping keeps nobody waiting.
func TestSilentForwarderIsPassedBy(t *testing.T) {
	t.Parallel()
	a, b := pairWith(t, true)
	address := free(t)
	a.assign(&wirepb.Assign{Version: 1, Full: true, Listeners: []*wirepb.Listener{tcp(1, address)}})
	watch := pace.Measure(t)
	began := time.Now()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	a.next() // and nothing comes
	if err := wire.WriteOpened(b.next(), nil); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(began); d > watch.Allow(8*time.Second) {
		t.Errorf("that took %v", d)
	}
	again, err := net.Dial("tcp", address) // the next does not even try
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	b.next()
}

// mute is a link whose peer answers no ping.
type mute struct{ transport.Session }

func (mute) Ping(ctx context.Context) (time.Duration, error) {
	<-ctx.Done()
	return 0, ctx.Err()
}

// Asked to leave by one forwarder the agent leaves when nothing is under way there.
func TestLeavesAfterItsStreams(t *testing.T) {
	a, b := pair(t)
	address := free(t)
	a.assign(&wirepb.Assign{Version: 1, Full: true, Listeners: []*wirepb.Listener{tcp(1, address)}})
	_, live, stream := a.through(address)
	a.send(wire.GoAwayMessage(wire.NodeDraining))
	for end := time.Now().Add(pace.Guard); a.agent.sessions.staying(nil) != 1; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the agent was not told to leave")
		}
	}
	b.through(address) // at once
	select {
	case <-a.link.Done():
		t.Error("the agent left a live stream")
	case <-time.After(2 * restTime):
	}
	live.Close()
	stream.Close()
	select {
	case <-a.link.Done():
	case <-time.After(pace.Guard):
		t.Error("the agent stays")
	}
}

func TestRoster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		r := newRoster([]string{"x:1", "y:1"}, 3)
		names := func() string {
			r.mu.Lock()
			defer r.mu.Unlock()
			var all []string
			for _, f := range r.free(time.Now()) {
				all = append(all, f.node+"@"+f.address)
			}
			return strings.Join(all, " ")
		}
		want := func(what, free string, sessions int) {
			t.Helper()
			if got := names(); got != free || r.wants() != sessions {
				t.Errorf("%s: %s, %d sessions; want %s, %d", what, got, r.wants(), free, sessions)
			}
		}
		want("at first", "@x:1 @y:1", 1)
		first := r.claim(ctx, 0)
		r.release(first)
		want("after a failure", "@y:1 @x:1", 1)
		first = r.claim(ctx, 0)
		r.welcomed(first, "a")
		want("welcomed", "@x:1", 1)
		r.tell([]*wirepb.Forwarder{{Node: "a", Address: "a:1"}, {Node: "b", Address: "b:1"}, {Node: "c", Address: "nonsense"},
			{Node: "b", Address: "twice:1"}, {Address: "nameless:1"}})
		want("told", "b@b:1 b@twice:1 @x:1", 3) // a node may have several addresses
		second := r.claim(ctx, 1)
		r.welcomed(second, "b")
		want("two sessions", "@x:1", 3)
		third := r.claim(ctx, 2)
		r.welcomed(third, "b") // another name of the same
		r.release(third)
		want("the same again", "", 3)
		r.release(first)
		want("one is lost", "a@a:1 a@y:1", 3)
		if again := r.claim(ctx, 0); again.address != "a:1" {
			t.Errorf("then %+v", again)
		}
		r.tell(nil) // an old forwarder, or one that is alone
		want("alone", "", 1)
		waiting := make(chan *claim)
		go func() { waiting <- r.claim(ctx, 1) }()
		synctest.Wait()
		cancel()
		if c := <-waiting; c != nil {
			t.Errorf("claimed %+v when there should be one session", c)
		}
		time.Sleep(troubleTime)
		r.release(second)
		want("much later", "b@x:1", 1)
	})
}
