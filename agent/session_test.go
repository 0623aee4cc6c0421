package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/pace"
	"github.com/tunnox-net/tunnox/transport"
	"github.com/tunnox-net/tunnox/wire"
	"github.com/tunnox-net/tunnox/wire/wirepb"
)

// script is a forwarder that does what the test says, one message at a time.
type script struct {
	t        *testing.T
	listener *transport.MemoryListener
	agent    *Agent
	ended    chan error
	stop     func() // ends the agent
	link     transport.Session
	control  transport.Stream

	node       string
	forwarders []*wirepb.Forwarder
	mute       bool          // it answers no ping
	patience   time.Duration // with the agent's next session; 0: pace.Guard
}

// newScript starts an agent and takes it through its login.
func newScript(t *testing.T, change ...func(*Config)) *script {
	t.Helper()
	return newScriptAt(t, "n", nil, func(*script) func(*Config) {
		return func(cfg *Config) {
			for _, c := range change {
				c(cfg)
			}
		}
	})
}

// newScriptAt is newScript for a node that tells of forwarders.
func newScriptAt(t *testing.T, node string, forwarders []*wirepb.Forwarder, change func(*script) func(*Config)) *script {
	t.Helper()
	credential, err := wire.NewCredential()
	if err != nil {
		t.Fatal(err)
	}
	s := &script{t: t, node: node, forwarders: forwarders, listener: transport.ListenMemory(), ended: make(chan error, 1)}
	cfg := Config{Servers: []string{"x"}, Identity: Identity{ClientID: 600000001, Credential: credential},
		Dial: func(ctx context.Context, _ string) (transport.Session, error) { return s.listener.Dial(ctx) }}
	change(s)(&cfg)
	if s.agent, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.ended <- s.agent.Run(ctx)
	}()
	s.stop = sync.OnceFunc(func() {
		cancel()
		<-done
		s.listener.Close()
	})
	t.Cleanup(s.stop)
	s.welcome(cfg.Identity.ClientID)
	return s
}

// welcome takes the agent's next session and returns its Hello.
func (s *script) welcome(id int64) *wirepb.Hello {
	s.t.Helper()
	hello := s.knocked()
	if hello.ClientId != id {
		s.t.Fatalf("client %d says hello, want %d", hello.ClientId, id)
	}
	s.send(&wirepb.Control{Message: &wirepb.Control_Welcome{Welcome: &wirepb.Welcome{Version: 1, ClientId: id,
		Session: "s", Node: s.node, PingSeconds: 1, DeadSeconds: 3, Forwarders: s.forwarders}}})
	return hello
}

// knocked takes the agent's next session up to its Hello.
func (s *script) knocked() *wirepb.Hello {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), cmp.Or(s.patience, pace.Guard))
	defer cancel()
	var err error
	if s.link, err = s.listener.Accept(ctx); err != nil {
		s.t.Fatal(err)
	}
	link := s.link
	s.t.Cleanup(func() { link.Close() })
	if s.control, err = s.link.Open(ctx); err != nil {
		s.t.Fatal(err)
	}
	nonce, _ := wire.NewNonce()
	s.send(&wirepb.Control{Message: &wirepb.Control_Challenge{Challenge: &wirepb.Challenge{MinVersion: 1, MaxVersion: 1, Nonce: nonce}}})
	return s.receive().GetHello()
}

func (s *script) send(m *wirepb.Control) {
	s.t.Helper()
	s.control.SetWriteDeadline(time.Now().Add(pace.Guard))
	if err := wire.WriteControl(s.control, m); err != nil {
		s.t.Fatal(err)
	}
}

// receive gives the agent's next message but pings.
func (s *script) receive() *wirepb.Control {
	s.t.Helper()
	for {
		s.control.SetReadDeadline(time.Now().Add(pace.Guard))
		m, err := wire.ReadControl(s.control, wire.MaxControl)
		if err != nil {
			s.t.Fatal(err)
		}
		if m.GetPing() == nil {
			return m
		}
	}
}

// assign sends an assignment and returns what the agent acknowledges, as text.
func (s *script) assign(m *wirepb.Assign) string {
	s.t.Helper()
	s.send(&wirepb.Control{Message: &wirepb.Control_Assign{Assign: m}})
	return s.ack()
}

func (s *script) ack() string {
	s.t.Helper()
	ack := s.receive().GetAck()
	text := []string{fmt.Sprint(ack.GetVersion())}
	for _, f := range ack.GetFailures() {
		text = append(text, fmt.Sprintf("%d:%s", f.MappingId, f.Code))
	}
	return strings.Join(text, " ")
}

// A configuration that comes in parts is applied when it is whole, and acknowledged
// once; what comes between the parts is answered meanwhile.
func TestAssignmentInParts(t *testing.T) {
	s := newScript(t)
	kept, fresh := free(t), free(t)
	s.assign(&wirepb.Assign{Version: 1, Full: true, Listeners: []*wirepb.Listener{tcp(1, kept)}})
	conn, err := net.Dial("tcp", kept)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	s.send(&wirepb.Control{Message: &wirepb.Control_Assign{Assign: &wirepb.Assign{Version: 2, Full: true, More: true, Listeners: []*wirepb.Listener{tcp(2, fresh)}}}})
	s.send(&wirepb.Control{Message: &wirepb.Control_Ping{Ping: &wirepb.Ping{Id: 7}}})
	if pong := s.receive().GetPong(); pong.GetId() != 7 {
		t.Fatalf("between two parts the agent says %v, want a pong", pong)
	}
	if conn, err := net.Dial("tcp", fresh); err == nil {
		conn.Close()
		t.Error("a part was applied before the whole had come")
	}
	if got := s.assign(&wirepb.Assign{Version: 2, Listeners: []*wirepb.Listener{tcp(1, kept)}}); got != "2" {
		t.Fatalf("acknowledged %q", got)
	}
	if conn, err := net.Dial("tcp", fresh); err != nil {
		t.Error(err)
	} else {
		conn.Close()
	}
	// The listener that was there all the time was not reopened.
	conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if _, err := conn.Read(make([]byte, 1)); !isTimeout(err) {
		t.Errorf("the connection of a listener that stays: %v", err)
	}
	// Parts that do not belong together end the session.
	s.send(&wirepb.Control{Message: &wirepb.Control_Assign{Assign: &wirepb.Assign{Version: 3, More: true}}})
	s.send(&wirepb.Control{Message: &wirepb.Control_Assign{Assign: &wirepb.Assign{Version: 4}}})
	select {
	case <-s.link.Done():
	case <-time.After(pace.Guard):
		t.Error("the session goes on after parts that do not belong together")
	}
}

func tcp(mapping int64, address string) *wirepb.Listener {
	host, portText, _ := net.SplitHostPort(address)
	var port uint32
	fmt.Sscan(portText, &port)
	return &wirepb.Listener{MappingId: mapping, Protocol: "tcp", Host: host, Port: port}
}

func free(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// through makes a connection and answers its stream, for the mapping it asks for.
func (s *script) through(address string) (mapping int64, conn net.Conn, stream transport.Stream) {
	s.t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(pace.Guard))
	if stream, err = s.link.Accept(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
	open, err := wire.ReadOpen(stream)
	if err != nil {
		s.t.Fatal(err)
	}
	if open.Peer != conn.LocalAddr().String() {
		s.t.Errorf("the peer is %q, want %q", open.Peer, conn.LocalAddr())
	}
	if err := wire.WriteOpened(stream, nil); err != nil {
		s.t.Fatal(err)
	}
	return open.MappingId, conn, stream
}

func TestAssignments(t *testing.T) {
	s := newScript(t)
	a, b, c := free(t), free(t), free(t)
	steps := []struct {
		name   string
		assign *wirepb.Assign
		ack    string
		open   map[string]int64 // who answers at which address, 0 = nobody
	}{
		{"a whole configuration", &wirepb.Assign{Version: 1, Full: true, Listeners: []*wirepb.Listener{tcp(1, a), tcp(2, b)}},
			"1", map[string]int64{a: 1, b: 2, c: 0}},
		{"one more", &wirepb.Assign{Version: 2, Listeners: []*wirepb.Listener{tcp(3, c)}},
			"2", map[string]int64{a: 1, b: 2, c: 3}},
		{"one less", &wirepb.Assign{Version: 3, Withdraw: []int64{2, 77}},
			"3", map[string]int64{a: 1, b: 0, c: 3}},
		{"two change places", &wirepb.Assign{Version: 4, Listeners: []*wirepb.Listener{tcp(1, c), tcp(3, a)}},
			"4", map[string]int64{a: 3, b: 0, c: 1}},
		{"nothing has changed", &wirepb.Assign{Version: 5, Unchanged: true},
			"5", map[string]int64{a: 3, b: 0, c: 1}},
		{"not a protocol, not an address", &wirepb.Assign{Version: 6, Listeners: []*wirepb.Listener{
			{MappingId: 7, Protocol: "sctp", Host: "127.0.0.1", Port: 1}, {MappingId: 8, Protocol: "tcp", Host: "nowhere", Port: 1},
			{MappingId: 9, Protocol: "tcp", Host: "127.0.0.1", Port: 70000}, {MappingId: 10, Protocol: "tcp", Host: "192.0.2.77", Port: 9}}},
			"6 7:protocol_unavailable 8:address_unavailable 9:address_unavailable 10:address_denied", map[string]int64{a: 3, c: 1}},
		{"a whole one without them", &wirepb.Assign{Version: 7, Full: true, Listeners: []*wirepb.Listener{tcp(1, a)}},
			"7", map[string]int64{a: 1, b: 0, c: 0}},
		{"none at all", &wirepb.Assign{Version: 8, Full: true}, "8", map[string]int64{a: 0, b: 0, c: 0}},
	}
	for _, step := range steps {
		if got := s.assign(step.assign); got != step.ack {
			t.Fatalf("%s: acknowledged %q, want %q", step.name, got, step.ack)
		}
		for address, mapping := range step.open {
			if mapping == 0 {
				if conn, err := net.Dial("tcp", address); err == nil {
					conn.Close()
					t.Errorf("%s: somebody listens on %s", step.name, address)
				}
				continue
			}
			got, conn, stream := s.through(address)
			if got != mapping {
				t.Errorf("%s: mapping %d answers at %s, want %d", step.name, got, address, mapping)
			}
			conn.Close()
			stream.Close()
		}
	}
}

func TestBusyAddressIsRetried(t *testing.T) {
	s := newScript(t)
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if got := s.assign(&wirepb.Assign{Version: 1, Full: true, Listeners: []*wirepb.Listener{tcp(1, busy.Addr().String())}}); got != "1 1:address_in_use" {
		t.Errorf("acknowledged %q", got)
	}
	busy.Close()
	if got := s.ack(); got != "1" {
		t.Errorf("then acknowledged %q", got)
	}
	s.through(busy.Addr().String())
}

// Without a session the listener stays and connections are reset at once; with
// the next session it is the same listener, and the agent says what it runs.
func TestListenerOutlivesTheSession(t *testing.T) {
	s := newScript(t)
	address := free(t)
	listeners := []*wirepb.Listener{tcp(1, address)}
	s.assign(&wirepb.Assign{Version: 42, Full: true, Listeners: listeners})
	_, live, _ := s.through(address)
	s.link.Close()
	if _, err := live.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("the live connection got %v, want a reset", err)
	}
	hello := s.knocked() // and is kept waiting
	if hello.ConfigVersion != 42 || string(hello.ConfigDigest) != string(wire.Digest(listeners)) {
		t.Errorf("the agent says that it runs %d", hello.ConfigVersion)
	}
	conn, err := net.Dial("tcp", address)
	if err == nil {
		conn.SetDeadline(time.Now().Add(pace.Guard))
		_, err = conn.Read(make([]byte, 1))
		conn.Close()
	}
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a connection without a session got %v, want a reset", err)
	}
	s.send(&wirepb.Control{Message: &wirepb.Control_Welcome{Welcome: &wirepb.Welcome{Version: 1, ClientId: 600000001, PingSeconds: 1, DeadSeconds: 3}}})
	if got := s.assign(&wirepb.Assign{Version: 43, Unchanged: true}); got != "43" {
		t.Errorf("acknowledged %q", got)
	}
	s.through(address)
}

// Asked to go elsewhere the agent connects anew at once; what it has goes on over
// the old session, which has no say any more.
func TestGoAwayKeepsLiveConnections(t *testing.T) {
	s := newScript(t)
	address := free(t)
	s.assign(&wirepb.Assign{Version: 1, Full: true, Listeners: []*wirepb.Listener{tcp(1, address)}})
	_, live, stream := s.through(address)
	old := s.control
	s.send(wire.GoAwayMessage(wire.NodeDraining))
	s.welcome(600000001)
	s.assign(&wirepb.Assign{Version: 2, Unchanged: true})
	if err := wire.WriteControl(old, &wirepb.Control{Message: &wirepb.Control_Assign{Assign: &wirepb.Assign{Version: 9, Full: true}}}); err != nil {
		t.Fatal(err)
	}
	io.WriteString(live, "over the old")
	got := make([]byte, 12)
	if _, err := io.ReadFull(stream, got); err != nil || string(got) != "over the old" {
		t.Errorf("got %q, %v", got, err)
	}
	s.through(address) // over the new one, and the old one has withdrawn nothing
}

func TestSilenceEndsTheSession(t *testing.T) {
	t.Parallel()
	watch := pace.Measure(t)
	s := newScript(t) // and says nothing from now on: three times the limit of 2 s
	began := time.Now()
	select {
	case <-s.link.Done():
	case <-time.After(pace.Guard):
		t.Fatal("the agent stays")
	}
	if d := time.Since(began); d < 5*time.Second || d > watch.Allow(10*time.Second) {
		t.Errorf("that took %v, want 6 s", d)
	}
	s.welcome(600000001)
}

func TestPermanentRefusalEndsRun(t *testing.T) {
	s := newScript(t)
	s.send(wire.RefusedMessage(wire.ClientRevoked))
	var e *EndedError
	if err := <-s.ended; !errors.As(err, &e) || e.Refusal.Code != wire.ClientRevoked {
		t.Errorf("ended with %v", err)
	}
	s.ended <- nil
}

// A forwarder that is not sure is asked again, and believed in the end.
func TestUnsureRefusalsAreBelievedInTheEnd(t *testing.T) {
	s := newScript(t)
	s.link.Close()
	for range maxUnsure {
		s.knocked()
		s.send(wire.RefusedMessage(&wire.Refusal{Code: wire.UnknownClient}))
	}
	var e *EndedError
	if err := <-s.ended; !errors.As(err, &e) || e.Refusal.Code != wire.UnknownClient {
		t.Errorf("ended with %v", err)
	}
	s.ended <- nil
}

// A forwarder that gives another identity than was proved is not one.
func TestWelcomeAsSomebodyElseIsRefused(t *testing.T) {
	s := newScript(t)
	s.link.Close()
	s.knocked()
	s.send(&wirepb.Control{Message: &wirepb.Control_Welcome{Welcome: &wirepb.Welcome{Version: 1, ClientId: 1}}})
	<-s.link.Done()
	s.welcome(600000001)
}

// Running out of descriptors does not end a listener.
func TestListenerSurvivesFailingAccepts(t *testing.T) {
	var log strings.Builder
	a := &Agent{log: slog.New(slog.NewTextHandler(&log, nil)), sessions: newSessions()}
	ls := newListeners(a)
	socket := &failing{left: 3}
	tcpSocket{socket}.serve(ls, &listener{mapping: 7})
	if socket.calls != 5 || strings.Count(log.String(), "too many open files") != 3 {
		t.Errorf("%d accepts, log:\n%s", socket.calls, &log)
	}
}

// failing is a socket that fails a few times, gives a connection, and is closed.
type failing struct {
	mu    sync.Mutex
	left  int
	calls int
}

func (f *failing) Accept() (net.Conn, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls++
	switch f.left--; {
	case f.left >= 0:
		return nil, &net.OpError{Op: "accept", Err: syscall.EMFILE}
	case f.left == -1:
		c, other := net.Pipe()
		other.Close()
		return c, nil
	}
	return nil, net.ErrClosed
}

func (f *failing) Close() error   { return nil }
func (f *failing) Addr() net.Addr { return nil }

// Passwords go to the address of the API, so a forwarder cannot change what was told
// first; and what is no address of an API is not kept.
func TestTheFirstAddressOfTheAPIIsBelieved(t *testing.T) {
	credential, err := wire.NewCredential()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "client.json")
	kept := &State{File: file, Joined: &Joined{Servers: []string{"x"}, Pins: []string{"sha256:a"}}}
	id := Identity{ClientID: 7, Credential: credential}
	if err := kept.Save(id, "x"); err != nil {
		t.Fatal(err)
	}
	a, err := New(Config{Servers: []string{"x"}, State: &State{File: file}, Dial: func(context.Context, string) (transport.Session, error) { return nil, errors.New("away") }})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ told, want string }{
		{"", ""}, {"ftp://a", ""}, {"https://ann:secret@a", ""}, {"a.example.org", ""}, {"\x1b[2J", ""},
		{"https://api.example.org", "https://api.example.org"}, {"https://evil.example.org", "https://api.example.org"}, {"", "https://api.example.org"},
	} {
		if _, err := a.welcomed(nil, nil, &wirepb.Welcome{ClientId: 7, Api: tt.told}, "x"); err != nil {
			t.Fatal(err)
		}
		now := &State{File: file}
		got, err := now.Load()
		if err != nil || got.ClientID != 7 || now.Joined.API != tt.want || !slices.Equal(now.Joined.Pins, kept.Joined.Pins) {
			t.Errorf("after %q: %+v, %v; want %q", tt.told, now.Joined, err, tt.want)
		}
	}
}
