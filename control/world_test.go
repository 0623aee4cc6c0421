package control

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/eventstore"
	"github.com/tunnox-net/tunnox/eventstore/sqlite"
	"github.com/tunnox-net/tunnox/projections"
	rows "github.com/tunnox-net/tunnox/projections/memory"
	"github.com/tunnox-net/tunnox/test/pace"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// plane is what stands behind State services: a real log, executor and read
// models, and the secrets of one cluster.
type plane struct {
	t         testing.TB
	store     *sqlite.Store
	executor  *eventstore.Executor
	rows      *rows.Store
	reader    *projections.Reader
	vault     *FileVault
	authority *Authority
	tokens    *JoinTokens
	clock     *clock
}

// clock is the time, and can be set forward.
type clock struct{ ahead atomic.Int64 }

func (c *clock) Now() time.Time          { return time.Now().Add(time.Duration(c.ahead.Load())) }
func (c *clock) advance(d time.Duration) { c.ahead.Add(int64(d)) }

func newPlane(t testing.TB) *plane {
	t.Helper()
	file := filepath.Join(t.TempDir(), "log.db")
	must(t, second(sqlite.Migrate(t.Context(), file)))
	p := &plane{t: t, vault: NewFileVault(t.TempDir()), clock: &clock{}, rows: rows.New()}
	var err error
	p.store, err = sqlite.Open(t.Context(), file)
	must(t, err)
	t.Cleanup(func() { must(t, p.store.Close()) })
	p.executor = eventstore.NewExecutor(p.store, eventstore.ExecutorOptions{})
	p.reader = projections.NewReader(p.rows)
	projector := projections.NewProjector(p.store, p.rows, projections.Options{})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = p.executor.Run(ctx) }) // ends with the context's error
	running.Go(func() { _ = projector.Run(ctx) })
	t.Cleanup(func() { cancel(); running.Wait() })
	p.authority, err = OpenAuthority(t.Context(), p.vault, AuthorityOptions{Now: p.clock.Now})
	must(t, err)
	p.tokens, err = OpenJoinTokens(t.Context(), p.vault, p.authority)
	must(t, err)
	return p
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func second[T any](_ T, err error) error { return err }

func (p *plane) head(ctx context.Context) (domain.Position, error) {
	h, err := p.store.Head(ctx)
	return h.Position, err
}

// config is a server's over this plane.
func (p *plane) config() ServerConfig {
	return ServerConfig{Authority: p.authority, JoinTokens: p.tokens, Log: p.store, Head: p.head,
		Executor: p.executor, Views: p.reader, Now: p.clock.Now}
}

// service is a server that runs.
type service struct {
	*Server
	address string
	ended   chan error
}

// serve runs a State service at an address, any when it is "".
func (p *plane) serve(address string, change ...func(*ServerConfig)) *service {
	p.t.Helper()
	config := p.config()
	for _, c := range change {
		c(&config)
	}
	server, err := NewServer(config)
	must(p.t, err)
	if address == "" {
		address = "127.0.0.1:0"
	}
	ln, err := net.Listen("tcp", address)
	must(p.t, err)
	s := &service{Server: server, address: ln.Addr().String(), ended: make(chan error, 1)}
	go func() { s.ended <- server.Serve(ln) }()
	p.t.Cleanup(s.stop)
	return s
}

func (s *service) stop() {
	s.Stop()
	if err, ok := <-s.ended; ok && err != nil {
		panic(err)
	}
	select {
	case <-s.ended:
	default:
		close(s.ended)
	}
}

// trust is that of a node with a fresh certificate.
func (p *plane) trust(node string) Trust {
	p.t.Helper()
	i, err := p.authority.IssueNode(node)
	must(p.t, err)
	return fixed(i)
}

func fixed(i Issued) Trust {
	return Trust{Certificate: func() (*tls.Certificate, error) { return &i.Certificate, nil },
		Roots: func() (*x509.CertPool, error) { return i.roots(), nil }}
}

// dial makes a client of a node.
func (p *plane) dial(addresses []string, change ...func(*Config)) *Client {
	p.t.Helper()
	config := Config{Addresses: addresses, Trust: p.trust("node-001"), Now: p.clock.Now}
	for _, c := range change {
		c(&config)
	}
	client, err := Dial(config)
	must(p.t, err)
	p.t.Cleanup(func() { must(p.t, client.Close()) })
	return client
}

// submit executes a command and returns its subject and position.
func (p *plane) submit(c domain.Command) domain.Receipt {
	p.t.Helper()
	r, err := p.executor.Submit(p.t.Context(), domain.Submission{Command: c,
		Meta: domain.Metadata{At: time.Now().UTC(), Actor: "key:test", Command: c.CommandName()}})
	must(p.t, err)
	return r
}

func (p *plane) nextID(s domain.Sequence) int64 {
	p.t.Helper()
	id, err := p.executor.NextID(p.t.Context(), s)
	must(p.t, err)
	return id
}

func (p *plane) user(limits domain.Limits) int64 {
	p.t.Helper()
	id := p.nextID(domain.SequenceUser)
	name := fmt.Sprintf("user%d", id)
	p.submit(domain.CreateUser{ID: id, Username: name, Email: name + "@example.org", PasswordHash: "$argon2id$secret", Limits: limits})
	return id
}

func (p *plane) client(user int64) int64 {
	p.t.Helper()
	id := p.nextID(domain.SequenceClient)
	// Agents of the user's other clients may lead connections here; TestCommands has others.
	p.submit(domain.CreateClient{ID: id, UserID: user, Name: "c", PublicKey: make([]byte, 32), Commands: domain.CommandsAll})
	return id
}

func (p *plane) mapping(user, source, target int64, port int) (id int64, at domain.Position) {
	p.t.Helper()
	id = p.nextID(domain.SequenceMapping)
	r := p.submit(domain.CreateMapping{ID: id, UserID: user, Any: true, SourceClientID: source, TargetClientID: target,
		Protocol: domain.ProtocolTCP, Parts: domain.Parts{Origin: domain.Origin{LocalPort: port}, Service: domain.Service{TargetHost: "127.0.0.1", TargetPort: 80}}})
	return id, r.Position
}

// pair is a user with two clients.
func (p *plane) pair() (user, source, target int64) {
	p.t.Helper()
	user = p.user(domain.Limits{})
	return user, p.client(user), p.client(user)
}

// eventually waits for something that others do.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	if !pace.Until(15*time.Second, 5*time.Millisecond, is) {
		t.Fatalf("%s: not within 15 s of work", what)
	}
}

func wantCode(t testing.TB, err error, code domain.Code) {
	t.Helper()
	if domain.CodeOf(err) != code {
		t.Errorf("error %v has code %q, want %q", err, domain.CodeOf(err), code)
	}
}

func isUnavailable(err error) bool { return errors.Is(err, ErrUnavailable) }
