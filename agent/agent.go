// Package agent is the program at the customer. It keeps sessions to forwarders. As a
// source agent it opens the listeners of mappings. As a target agent it dials the
// services of mappings.
//
// Its duty is to come back after a lost link, a restarted server or a network that drops
// packets without an error. It comes back with the same identity, and restarts only what
// has changed. Its limit: it decides nothing about mappings. A [Policy] of its owner
// decides what may be dialled from here.
//
// If the cluster has several forwarders, the agent has sessions at two of them, so that
// new connections succeed when one session ends. Without a session the listeners stay
// open, so that no other program takes their addresses, and connections to them are
// reset at once. Live connections end with the session that carried them.
package agent

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/tunnox-net/tunnox/datagram"
	"github.com/tunnox-net/tunnox/transport"
	"github.com/tunnox-net/tunnox/wire"
)

// Config has the settings of an agent.
type Config struct {
	Servers  []string // addresses of forwarders, to begin with; they tell of others
	Sessions int      // how many to keep, at different forwarders as far as there are; 0: DefaultSessions
	Dial     func(ctx context.Context, server string) (transport.Session, error)
	Identity Identity // zero: from State, and if it has none a new anonymous one
	State    *State   // where an anonymous identity is kept; nil: nowhere
	Policy   Policy   // what may be dialled; zero: loopback
	// Listening has the addresses at which the server may open listeners. Zero: ports
	// of loopback from 1024.
	Listening Listening
	// Sealing is what connections are encrypted from end to end with; nil: this agent cannot.
	Sealing *Sealing
	// SealedOnly refuses, at both ends, connections that are not encrypted from end to end.
	SealedOnly bool
	// NoLanes keeps the bulk of streams in the session, where only one connection gets
	// through to a forwarder.
	NoLanes   bool
	Invite    []byte // with which an identity is asked for where there is none; nil: an anonymous one
	Reachable bool   // with Invite: agents of the user's other clients may have connections led here
	Name      string // for people, sent when registering
	Version   string // of the program
	Logger    *slog.Logger

	// Online, if set, is called for each session after its login. The session waits
	// until the function returns.
	Online func(clientID int64, node string)
	// Changed, if set, is called after a listener was opened or closed. It must return
	// at once, because locks are held.
	Changed func()
	// Stirred, if set, tells that the machine has slept or changed its network. The
	// agent then checks its sessions at once.
	Stirred <-chan struct{}
	// Tries, if set, gives the result of the latest attempt over each transport.
	Tries func() []TransportStatus
	// Inspector shows what passes over tunnels that ask for it; nil: it cannot be asked for.
	Inspector Inspector
	// DialService dials services that the policy allows; nil: a plain net.Dialer.
	DialService func(ctx context.Context, network, address string) (net.Conn, error)
	// Resolve resolves host names of services; nil: the system's resolver.
	Resolve func(ctx context.Context, host string) ([]net.IPAddr, error)
}

// DefaultSessions is how many sessions an agent keeps.
const DefaultSessions = 2

// MaxSessions is the most sessions that an agent can keep.
const MaxSessions = 8

// Agent is one agent. [New] starts nothing. Run returns when the agent has ended.
type Agent struct {
	dial       func(ctx context.Context, server string) (transport.Session, error)
	state      *State
	name       string
	invite     []byte
	reachable  bool
	version    string
	online     func(clientID int64, node string)
	changed    func()
	servers    []string // the config's
	log        *slog.Logger
	listening  Listening
	seals      *seals // nil: it cannot encrypt from end to end
	sealedOnly bool
	noLanes    bool

	roster       *roster
	sessions     *sessions
	listeners    *listeners
	target       *target
	said         complaints
	datagrams    datagram.Counts // of all flows
	socksRefused atomic.Int64    // clients of SOCKS that got no way
	fence        fence
	unsure       atomic.Int64 // refusals in a row that may be a server that is not up to date yet
	tunnels      *tunnels
	inspector    Inspector       // nil: none
	ending       chan struct{}   // closed when Run is to end
	ctx          context.Context // of Run
	end          context.CancelCauseFunc

	tries   func() []TransportStatus
	stirs   <-chan struct{} // the config's
	stirMu  sync.Mutex
	stirred chan struct{} // guarded by stirMu; closed and replaced at each

	idMu     sync.Mutex
	identity Identity // guarded by idMu
	instance string   // guarded by idMu; a reconnect of this process fences nobody

	tasks sync.WaitGroup // every goroutine but Run's caller
}

// New builds an agent and reads its identity.
func New(cfg Config) (*Agent, error) {
	switch {
	case len(cfg.Servers) == 0:
		return nil, errors.New("build agent: no server address")
	case cfg.Sessions < 0 || cfg.Sessions > MaxSessions:
		return nil, fmt.Errorf("build agent: %d sessions, want 1 to %d", cfg.Sessions, MaxSessions)
	case cfg.Dial == nil:
		return nil, errors.New("build agent: no way to dial")
	case cfg.Identity.ClientID != 0 && !cfg.Identity.Credential.Valid():
		return nil, errors.New("build agent: a client id needs its auth code")
	case cfg.Sealing != nil && cfg.Sealing.Keys == nil:
		return nil, errors.New("build agent: it is to encrypt from end to end, and has no key")
	case cfg.SealedOnly && cfg.Sealing == nil:
		return nil, errors.New("build agent: it allows connections that are encrypted from end to end only, and has no key")
	case cfg.Identity.ClientID == 0 && cfg.Identity.Credential.Valid():
		return nil, errors.New("build agent: an auth code needs its client id")
	}
	a := &Agent{roster: newRoster(cfg.Servers, cmp.Or(cfg.Sessions, DefaultSessions)), sessions: newSessions(), dial: cfg.Dial, state: cfg.State, name: cfg.Name, invite: cfg.Invite, reachable: cfg.Reachable, version: cfg.Version,
		instance: rand.Text(), online: cfg.Online, log: cfg.Logger, identity: cfg.Identity, listening: cfg.Listening}
	a.inspector = cfg.Inspector
	if a.sealedOnly = cfg.SealedOnly; cfg.Sealing != nil {
		a.seals = newSeals(a, cfg.Sealing)
	}
	a.noLanes = cfg.NoLanes
	a.changed, a.servers = cfg.Changed, slices.Clone(cfg.Servers)
	a.tries, a.stirs, a.stirred = cfg.Tries, cfg.Stirred, make(chan struct{})
	if a.log == nil {
		a.log = slog.New(slog.DiscardHandler)
	}
	if cfg.Identity.ClientID != 0 {
		a.state = nil // an identity that was given is its owner's to keep
	} else {
		id, err := a.state.Load()
		if err != nil {
			return nil, fmt.Errorf("build agent: %w", err)
		}
		a.identity = id
	}
	a.listeners, a.tunnels, a.ending = newListeners(a), newTunnels(a), make(chan struct{})
	a.target = newTarget(a, cfg)
	return a, nil
}

// ClientID gives the agent's client id, 0 while it is not connected.
func (a *Agent) ClientID() int64 {
	if s, _, _ := a.sessions.pick(nil); s != nil {
		return s.client
	}
	return 0
}

// Run keeps the agent connected until ctx ends; then it returns nil. It returns an
// [*EndedError] when a forwarder refuses the agent for good.
func (a *Agent) Run(ctx context.Context) error {
	outer := ctx
	ctx, a.end = context.WithCancelCause(ctx)
	a.ctx = ctx
	context.AfterFunc(ctx, func() { close(a.ending) })
	defer a.tasks.Wait()
	defer a.listeners.close()
	defer a.end(nil)
	a.start(func() { a.listeners.retry(ctx) })
	a.start(func() { a.tunnels.sweep(ctx) })
	if err := a.prepareIdentity(); err != nil {
		return err
	}
	if a.seals != nil && a.seals.proofs != nil {
		if err := a.seals.proofs.load(a.credential()); err != nil {
			return err
		}
		a.start(func() { a.keepKey(ctx) })
	}
	if a.stirs != nil {
		a.start(func() { a.heed(ctx, a.stirs) })
	}
	for slot := range a.roster.most {
		a.tasks.Go(func() { a.keep(ctx, slot) })
	}
	<-ctx.Done()
	if outer.Err() != nil {
		return nil
	}
	return context.Cause(ctx)
}

// A forwarder that has just started may not know a client yet, and does not say that the
// refusal is for good. The agent believes it after so many such answers.
const maxUnsure = 5

// unverified tells whether a server answered with another identity than the expected one.
func unverified(err error) bool {
	if _, certificate := errors.AsType[*tls.CertificateVerificationError](err); certificate {
		return true
	}
	_, name := errors.AsType[x509.HostnameError](err) // of a pinned authority's certificate
	return name || errors.Is(err, transport.ErrPin)
}

// speaksHTTP tells whether a web server answered. A web server takes the first message of
// TLS for a bad request.
func speaksHTTP(err error) bool {
	header, ok := errors.AsType[tls.RecordHeaderError](err)
	return ok && string(header.RecordHeader[:]) == "HTTP/"
}

func describe(err error) string {
	if err == nil {
		return "the session was left"
	}
	return err.Error()
}

// prepareIdentity makes a key for an agent that has none. It stores the key before it
// tells the server, because an id that was registered with a lost key is lost too.
func (a *Agent) prepareIdentity() error {
	a.idMu.Lock()
	defer a.idMu.Unlock()
	if a.identity.Credential.Valid() {
		return nil
	}
	credential, err := wire.NewCredential()
	if err != nil {
		return err
	}
	a.identity = Identity{Credential: credential}
	return a.state.Save(a.identity, "")
}

func (a *Agent) credential() wire.Credential {
	a.idMu.Lock()
	defer a.idMu.Unlock()
	return a.identity.Credential
}

func (a *Agent) file() string {
	if a.state == nil {
		return ""
	}
	return a.state.File
}

// start runs do in a goroutine that Run waits for. A panic ends only this goroutine, and
// not the process.
func (a *Agent) start(do func()) {
	a.tasks.Go(func() {
		defer a.survive()
		do()
	})
}

func (a *Agent) survive() {
	if p := recover(); p != nil {
		a.log.Error("panic in a connection, which ends it", "panic", p, "stack", string(debug.Stack()))
	}
}

// EndedError tells why an agent does not try again, and what its owner can do.
type EndedError struct {
	Refusal *wire.Refusal
	File    string // where the identity is kept, "" = it was given
}

// Error says what happened and what to do.
func (e *EndedError) Error() string {
	return fmt.Sprintf("the server refused this agent for good (%v); %s", e.Refusal, e.advice())
}

// Unwrap gives the refusal.
func (e *EndedError) Unwrap() error { return e.Refusal }

func (e *EndedError) advice() string {
	renew := "check the client id and its auth code, or rotate the credential and use the new auth code"
	if e.File != "" {
		renew = "delete " + e.File + " to register as a new anonymous client, if that is what you want"
	}
	switch e.Refusal.Code {
	case wire.BadCredential, wire.UnknownClient:
		return renew + "; check also that this is the right server"
	case wire.ClientRevoked:
		return "its credential was rotated: " + renew
	case wire.ClientDeleted:
		if e.File != "" {
			return renew
		}
		return "create another client over the API and use its id and auth code"
	case wire.InviteRefused:
		return "ask whoever invited you for another"
	case wire.RegistrationOff:
		return "ask for an invitation and use tunnox join, or create a client over the API and start the agent with its client id and auth code"
	case wire.VersionUnsupported:
		return "update the agent or the server, so that both speak a common version"
	}
	return "ask who runs the server"
}
