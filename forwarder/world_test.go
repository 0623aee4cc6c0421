package forwarder_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tunnox-net/tunnox/agent"
	"github.com/tunnox-net/tunnox/directory"
	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/forwarder"
	"github.com/tunnox-net/tunnox/test/pace"
	"github.com/tunnox-net/tunnox/transport"
	"github.com/tunnox-net/tunnox/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// modes are the transports that every test of the byte path runs over.
var modes = []string{"memory", "tls"}

// over runs one test body over all transports.
func over(t *testing.T, body func(t *testing.T, w *world)) {
	for _, mode := range modes {
		t.Run(mode, func(t *testing.T) { body(t, newWorld(t, mode)) })
	}
}

// world is a control plane in memory, one real forwarder and real agents.
type world struct {
	t         testing.TB
	mode      string
	plane     *plane
	presences *presences
	limits    forwarder.Limits
	ledger    forwarder.Ledger
	now       func() time.Time
	commander forwarder.Commander
	ports     *forwarder.Ports
	log       *slog.Logger
	user      int64
	closing   []func()

	mu   sync.Mutex
	node *node
}

// node is one life of the forwarder.
type node struct {
	*forwarder.Forwarder
	metrics  *forwarder.Metrics
	listener transport.Listener
	stop     func()
}

func newWorld(t testing.TB, mode string) *world {
	t.Helper()
	w := &world{t: t, mode: mode, plane: newPlane(), presences: newPresences(), log: slog.New(slog.DiscardHandler)}
	if testing.Verbose() {
		w.log = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo}))
	}
	t.Cleanup(func() {
		for i := len(w.closing) - 1; i >= 0; i-- {
			w.closing[i]()
		}
		if n := w.current(); n != nil {
			n.stop()
		}
	})
	w.user = w.newUser(domain.Limits{})
	w.start()
	return w
}

// start begins a life of the forwarder.
func (w *world) start() {
	w.t.Helper()
	metrics := forwarder.NewMetrics()
	f, err := forwarder.New(forwarder.Config{Node: "node-001", Lookup: w.plane, Feed: w.plane, Directory: w.presences,
		Registrar: w.plane, Commander: w.commander, Logger: w.log.With("part", "forwarder"), Metrics: metrics, Limits: w.limits,
		Ledger: w.ledger, Now: w.now, Ports: w.ports})
	if err != nil {
		w.t.Fatal(err)
	}
	n := &node{Forwarder: f, metrics: metrics, listener: w.listen()}
	var running sync.WaitGroup
	running.Go(func() {
		if err := f.Run(context.Background()); err != nil {
			w.t.Errorf("forwarder: %v", err)
		}
	})
	running.Go(func() {
		if err := f.Serve(context.Background(), n.listener); err != nil {
			w.t.Errorf("serve: %v", err)
		}
	})
	n.stop = sync.OnceFunc(func() {
		f.Close()
		n.listener.Close()
		running.Wait()
	})
	w.mu.Lock()
	w.node = n
	w.mu.Unlock()
}

func (w *world) current() *node {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.node
}

func (w *world) listen() transport.Listener { return w.listenAt("127.0.0.1:0") }

func (w *world) listenAt(address string) transport.Listener {
	w.t.Helper()
	if w.mode == "memory" {
		return transport.ListenMemory()
	}
	ln, err := net.Listen("tcp", address)
	if err != nil {
		w.t.Fatal(err)
	}
	l, err := transport.ListenTLS(ln, transport.ListenConfig{Certificate: identity(w.t)}, w.log)
	if err != nil {
		w.t.Fatal(err)
	}
	return l
}

// dial reaches the forwarder's present life.
func (w *world) dial(ctx context.Context, _ string) (transport.Session, error) {
	switch l := w.current().listener.(type) {
	case *transport.MemoryListener:
		return l.Dial(ctx)
	default:
		return transport.DialTLS(ctx, l.Addr().String(), transport.DialConfig{Pins: []transport.Pin{pin(w.t)}})
	}
}

func (w *world) newUser(limits domain.Limits) int64 {
	w.t.Helper()
	id := domain.FirstUserID + w.plane.ids.Add(1)
	name := "user" + strconv.FormatInt(id, 10)
	w.plane.do(w.t, domain.CreateUser{ID: id, Username: name, Email: name + "@example.org", Limits: limits})
	return id
}

// client is a client of a user, with its credential.
type client struct {
	id         int64
	credential wire.Credential
}

func (w *world) client(user int64) client {
	w.t.Helper()
	credential, err := wire.NewCredential()
	if err != nil {
		w.t.Fatal(err)
	}
	id := domain.FirstClientID + w.plane.ids.Add(1)
	w.plane.do(w.t, domain.CreateClient{ID: id, UserID: user, Name: "c" + strconv.FormatInt(id, 10), PublicKey: credential.PublicKey(), Commands: domain.CommandsAll})
	return client{id, credential}
}

// mapping is a mapping with the address that its source agent listens on.
type mapping struct {
	id      int64
	address string
}

// mapping makes a mapping to a service and returns the log's position after it.
func (w *world) mapping(source, target client, service string) mapping {
	w.t.Helper()
	m := mapping{id: domain.FirstMappingID + w.plane.ids.Add(1), address: freeAddress(w.t)}
	host, port := split(w.t, service)
	localHost, localPort := split(w.t, m.address)
	w.plane.do(w.t, domain.CreateMapping{ID: m.id, Any: true, UserID: w.plane.clientOwner(source.id, w.user), SourceClientID: source.id,
		TargetClientID: target.id, Protocol: domain.ProtocolTCP, Parts: domain.Parts{
			Origin:  domain.Origin{LocalHost: localHost, LocalPort: localPort},
			Service: domain.Service{TargetHost: host, TargetPort: port}}})
	return m
}

func (p *plane) clientOwner(id, otherwise int64) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.state(domain.ClientStream(id)).(*domain.Client); c.UserID != 0 {
		return c.UserID
	}
	return otherwise
}

// running is an agent at work.
type running struct {
	*agent.Agent
	stop func() error // ends it and gives what Run returned
	done chan struct{}
	err  error
}

// agent starts an agent for a client, and waits until it is connected and in the
// directory, if that can be written: an agent is online a moment before.
func (w *world) agent(c client, change ...func(*agent.Config)) *running {
	w.t.Helper()
	online := make(chan struct{}, 100)
	r := w.launch(c, append(change, func(cfg *agent.Config) {
		cfg.Online = func(int64, string) { online <- struct{}{} }
	})...)
	select {
	case <-online:
	case <-r.done:
		w.t.Fatalf("agent of client %d ended: %v", c.id, r.err)
	case <-time.After(pace.Guard):
		w.t.Fatalf("agent of client %d did not connect", c.id)
	}
	if !w.presences.isAway() {
		w.session(client{id: r.ClientID()})
	}
	return r
}

// launch starts an agent for a client.
func (w *world) launch(c client, change ...func(*agent.Config)) *running {
	w.t.Helper()
	cfg := agent.Config{Servers: []string{"forwarder"}, Dial: w.dial, Version: "test",
		Identity: agent.Identity{ClientID: c.id, Credential: c.credential}, Logger: w.log.With("part", "agent", "of", c.id)}
	for _, ch := range change {
		ch(&cfg)
	}
	a, err := agent.New(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{Agent: a, done: make(chan struct{})}
	go func() {
		defer close(r.done)
		r.err = a.Run(ctx)
	}()
	r.stop = func() error {
		cancel()
		<-r.done
		return r.err
	}
	w.closing = append(w.closing, func() { r.stop() })
	return r
}

// settled waits until the client's agent has acknowledged what the log says now.
func (w *world) settled(clients ...client) {
	w.t.Helper()
	w.plane.mu.Lock()
	position := int64(len(w.plane.records))
	w.plane.mu.Unlock()
	for _, c := range clients {
		w.ackedAt(c, position)
	}
}

func (w *world) ackedAt(c client, position int64) {
	w.t.Helper()
	eventually(w.t, fmt.Sprintf("client %d runs configuration %d", c.id, position), func() bool {
		s, ok := w.presences.of(c.id)
		return ok && s.ConfigAck >= position
	})
}

// session waits for the client's session in the directory, and gives it.
func (w *world) session(c client) (s directory.Session) {
	w.t.Helper()
	eventually(w.t, fmt.Sprintf("client %d is in the directory", c.id), func() (ok bool) {
		s, ok = w.presences.of(c.id)
		return ok
	})
	return s
}

// pair makes two clients with agents and a mapping from one to the other.
func (w *world) pair(service string) (source, target client, m mapping) {
	w.t.Helper()
	source, target = w.client(w.user), w.client(w.user)
	w.agent(target)
	w.agent(source)
	m = w.mapping(source, target, service)
	w.listening(m)
	return source, target, m
}

// listening waits until the mapping's listener is open.
func (w *world) listening(m mapping) {
	w.t.Helper()
	eventually(w.t, "listener "+m.address+" opens", func() bool { return socketOf(w.t, m.address) != "" })
}

// closed waits until nothing listens on the mapping's address.
func (w *world) closed(m mapping) {
	w.t.Helper()
	eventually(w.t, "listener "+m.address+" closes", func() bool { return socketOf(w.t, m.address) == "" })
}

func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	if !pace.Until(10*time.Second, time.Millisecond, is) {
		t.Fatalf("not in time: %s", what)
	}
}

// freeAddress gives a loopback address that nobody listens on, with a port below
// those that the kernel gives to outgoing connections: it stays free.
func freeAddress(t testing.TB) string {
	t.Helper()
	for range 100 {
		ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 10000+rand.IntN(20000)))
		if err == nil {
			defer ln.Close()
			return ln.Addr().String()
		}
	}
	t.Fatal("no free port found")
	return ""
}

func split(t testing.TB, address string) (string, int) {
	t.Helper()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	return host, n
}

// serve runs a service that handles each connection with do, until the test ends.
func serve(t testing.TB, do func(*net.TCPConn)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	conns := map[net.Conn]bool{}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns[conn] = true
			mu.Unlock()
			running.Go(func() {
				defer func() {
					conn.Close()
					mu.Lock()
					delete(conns, conn)
					mu.Unlock()
				}()
				do(conn.(*net.TCPConn))
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		mu.Lock()
		for conn := range conns {
			conn.Close()
		}
		mu.Unlock()
		running.Wait()
	})
	return ln.Addr().String()
}

// echo sends back what it gets, then closes its write side.
func echo(t testing.TB) string {
	return serve(t, func(c *net.TCPConn) {
		buf := echoBuffers.Get().([]byte)
		defer func() {
			//lint:ignore SA6002 an allocation a connection is nothing to a test
			echoBuffers.Put(buf)
		}()
		for {
			n, err := c.Read(buf)
			if n > 0 {
				if _, err := c.Write(buf[:n]); err != nil {
					return
				}
			}
			if err != nil {
				c.CloseWrite()
				return
			}
		}
	})
}

// A benchmark's allocations are to be the byte path's, not the service's.
var echoBuffers = sync.Pool{New: func() any { return make([]byte, 32<<10) }}

// greet says a word to everybody and closes.
func greet(t testing.TB, word string) string {
	return serve(t, func(c *net.TCPConn) { io.WriteString(c, word) })
}

func connect(t testing.TB, address string) *net.TCPConn {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(pace.Guard))
	return conn.(*net.TCPConn)
}

// dialled is connect where the answer may be a reset; that can come before the dial
// has returned. Then it is nil.
func dialled(t testing.TB, address string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return nil
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(pace.Guard))
	return conn
}

// roundTrip sends a line and wants it back.
func roundTrip(conn net.Conn, line string) error {
	if _, err := io.WriteString(conn, line); err != nil {
		return err
	}
	got := make([]byte, len(line))
	if _, err := io.ReadFull(conn, got); err != nil {
		return err
	}
	if !bytes.Equal(got, []byte(line)) {
		return fmt.Errorf("got %q", got)
	}
	return nil
}

// works tells whether a fresh connection to an echo service works.
func works(address string) bool {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return false
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(pace.Guard))
	return roundTrip(conn, "does it work?") == nil
}

// heard gives all that a fresh connection to the address says.
func heard(address string) (string, error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(pace.Guard))
	b, err := io.ReadAll(conn)
	return string(b), err
}

// isReset tells whether the connection was aborted by the other side.
func isReset(err error) bool {
	var timeout net.Error
	return err != nil && !errors.Is(err, io.EOF) && !(errors.As(err, &timeout) && timeout.Timeout())
}

func ptr[T any](v T) *T { return &v }
