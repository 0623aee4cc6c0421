package forwarder

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/transport"
	"github.com/tunnox-net/tunnox/wait"
	"github.com/tunnox-net/tunnox/wire"
	"github.com/tunnox-net/tunnox/wire/wirepb"
)

// A proof that fails is checked again with a newer view for this long: the client may
// have been created, or its credential rotated, a moment ago, and read models lag
// behind the log. This also slows down guessing.
const patience = 300 * time.Millisecond

// serveSession takes a stranger's link through the login and begins to serve it.
func (f *Forwarder) serveSession(link transport.Session) {
	var s *session
	defer func() {
		if s == nil { // also after a panic
			link.Close()
		}
	}()
	leave, refusal := f.logins.enter(link.RemoteAddr())
	if refusal != nil {
		f.metrics.refused.WithLabelValues(string(refusal.Code)).Inc()
		return // not worth a stream: the peer knows that it has too many
	}
	defer leave()
	ctx, cancel := context.WithTimeout(f.ctx, f.limits.Login)
	defer cancel()
	// A login that takes too long ends with its link, whatever it waits for.
	stop := context.AfterFunc(ctx, func() { link.Close() })
	defer stop()

	welcomed, err := f.login(ctx, link)
	if err != nil {
		level := slog.LevelDebug // a stranger that leaves is not worth a line
		if refusal := (*wire.Refusal)(nil); errors.As(err, &refusal) && f.strangers.Allow() {
			level = slog.LevelInfo
		}
		f.log.Log(ctx, level, "login failed", "from", network(link.RemoteAddr()), "reason", said(err))
		return
	}
	stop()
	leave()
	s = welcomed
	if f.ctx.Err() != nil {
		s.end(wire.Refuse(wire.ShuttingDown)) // Close may have looked before the session was there
	}
	if f.draining.Load() { // it came in while the others were asked to leave
		f.start(func() { s.send(wire.GoAwayMessage(wire.NodeDraining)) })
	}
	s.serve()
}

// login asks a stranger for its identity and answers Welcome or Refused. The error is
// for the log only.
func (f *Forwarder) login(ctx context.Context, link transport.Session) (*session, error) {
	control, err := link.Open(ctx)
	if err != nil {
		return nil, fmt.Errorf("open the control stream: %w", err)
	}
	control.SetDeadline(f.deadline())
	nonce, err := wire.NewNonce()
	if err != nil {
		return nil, err
	}
	err = wire.WriteControl(control, &wirepb.Control{Message: &wirepb.Control_Challenge{Challenge: &wirepb.Challenge{
		MinVersion: wire.MinVersion, MaxVersion: wire.MaxVersion, Nonce: nonce}}})
	if err != nil {
		return nil, fmt.Errorf("write challenge: %w", err)
	}
	hello, err := readHello(control)
	if err == nil {
		s := f.newSession(link, control, hello)
		if err = f.prove(ctx, s, hello, nonce); err == nil {
			return s, f.welcome(s, hello)
		}
	}
	var refusal *wire.Refusal
	if errors.As(err, &refusal) {
		f.metrics.refused.WithLabelValues(string(refusal.Code)).Inc()
		sayRefused(control, link, refusal, new(sync.Mutex))
	}
	return nil, err
}

// deadline gives the time at which a login that begins now must be over.
func (f *Forwarder) deadline() time.Time { return time.Now().Add(f.limits.Login) }

// readHello reads the agent's first message and checks what can be checked without
// knowing the client.
func readHello(control io.Reader) (*wirepb.Hello, error) {
	m, err := wire.ReadControl(control, wire.MaxHandshake)
	if err != nil {
		if errors.Is(err, wire.Malformed) {
			return nil, wire.Refuse(wire.Malformed)
		}
		return nil, fmt.Errorf("read hello: %w", err)
	}
	hello := m.GetHello()
	switch {
	case hello == nil:
		return nil, wire.Refuse(wire.Malformed)
	case hello.Version < wire.MinVersion || hello.Version > wire.MaxVersion:
		return nil, wire.Refuse(wire.VersionUnsupported)
	case hello.Register != (hello.ClientId == 0), hello.ClientId < 0, len(hello.Invite) > 0 && !hello.Register, hello.Reachable && len(hello.Invite) == 0, hello.Instance == "",
		len(hello.Instance) > wire.MaxInstance, len(hello.AgentVersion) > 100:
		return nil, wire.Refuse(wire.Malformed)
	case !validProtocols(hello.Protocols):
		return nil, wire.Refuse(wire.Malformed)
	case !printable(hello.Instance), !printable(hello.AgentVersion):
		return nil, wire.Refuse(wire.Malformed) // the API shows the version, on terminals too
	}
	return hello, nil
}

// printable reports whether the text can be shown to people unchanged: nothing in it
// moves a cursor or changes the direction of the text around it.
func printable(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) })
}

func (f *Forwarder) newSession(link transport.Session, control transport.Stream, hello *wirepb.Hello) *session {
	id := token()
	return &session{f: f, link: link, control: control, id: id, client: hello.ClientId,
		log:      f.log.With(slog.Int64("client", hello.ClientId), slog.String("session", id)),
		instance: hello.Instance, version: hello.AgentVersion, carries: carriesOf(hello), since: f.now(), running: hello.ConfigDigest,
		commands: make(chan struct{}, commandsAtOnce)}
}

// prove checks that the agent is who it says, and registers its session.
func (f *Forwarder) prove(ctx context.Context, s *session, hello *wirepb.Hello, nonce []byte) error {
	proof := wire.Proof{Version: hello.Version, Nonce: nonce, Binding: s.link.Binding(),
		ClientID: hello.ClientId, Instance: hello.Instance}
	if f.draining.Load() {
		r := wire.Refuse(wire.NodeDraining)
		r.RetryAfter = time.Second
		return r
	}
	wait := patience
	if hello.Register {
		if err := f.register(ctx, s, hello, proof); err != nil {
			return err
		}
		wait = f.limits.Login // it exists; the read model will know it
	}
	view, err := f.identify(ctx, s.client, wait, func(key []byte) error {
		s.key = key
		if hello.Register { // proved already, for the key with which it registered
			if !bytes.Equal(key, hello.PublicKey) {
				return wire.Refuse(wire.BadCredential)
			}
			return nil
		}
		return wire.Verify(key, proof, hello.Signature)
	})
	if err != nil {
		return err
	}
	if refusal := f.logins.again(s.client); refusal != nil {
		return refusal
	}
	// An agent that connects here again by mistake, for example through a balancer,
	// must not lose its session for one that is no better.
	switch here := f.routes.current(s.client); {
	case here == nil:
	case here.instance == s.instance && slices.Contains(hello.Nodes, f.node):
		r := wire.Refuse(wire.AlreadyConnected)
		r.RetryAfter = time.Second
		return r
	case here.instance != s.instance && !f.takeovers.allow(s.client, f.now()):
		s.log.Warn("agents with the same identity fence each other; the newest is refused for a while", "from", network(s.link.RemoteAddr()), "connected", network(here.link.RemoteAddr()))
		return supersededBy(here.presence())
	}
	if refusal := f.seat(ctx, s, view); refusal != nil {
		return refusal
	}
	return nil
}

// register gives an identity to an agent that has only its key.
func (f *Forwarder) register(ctx context.Context, s *session, hello *wirepb.Hello, proof wire.Proof) error {
	if f.registrar == nil {
		return wire.Refuse(wire.RegistrationOff)
	}
	if err := wire.Verify(hello.PublicKey, proof, hello.Signature); err != nil {
		return wire.Refuse(wire.CodeOf(err))
	}
	if refusal := f.logins.register(s.link.RemoteAddr()); refusal != nil {
		return refusal
	}
	source := ""
	if a := s.link.RemoteAddr(); a != nil {
		source = a.String()
	}
	asked := domain.Registration{PublicKey: hello.PublicKey, Name: hello.Name, Source: source}
	if len(hello.Invite) > 0 {
		asked.Invite, asked.Reachable = hello.Invite, hello.Reachable
	}
	id, err := f.registrar.Register(ctx, asked)
	if err != nil {
		f.log.Warn("registering an agent", "from", network(s.link.RemoteAddr()), "error", err)
		if refusal, ok := errors.AsType[*domain.Error](err); ok && asked.Invite != nil && refusal.Code != domain.CodeStoreUnavailable {
			// The sentence is for the person with the code: it says what is wrong with
			// the code, with the given name, or with the account of the user who
			// invited.
			return &wire.Refusal{Code: wire.InviteRefused, Message: refusal.Error() + " [" + string(refusal.Code) + "]", Permanent: true}
		}
		switch domain.CodeOf(err) {
		case domain.CodeInvalid:
			return wire.Refuse(wire.Malformed)
		case domain.CodeRegistrationOff:
			return wire.Refuse(wire.RegistrationOff)
		}
		return later(time.Second)
	}
	s.client = id
	s.log = f.log.With(slog.Int64("client", id), slog.String("session", s.id))
	return nil
}

// nobody is a public key whose private half is thrown away. Proofs are checked against it
// for clients that do not exist.
var nobody = func() ed25519.PublicKey {
	public, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err) // crypto/rand never fails
	}
	return public
}()

// identify looks the client up and checks its proof.
func (f *Forwarder) identify(ctx context.Context, clientID int64, within time.Duration, check func(key []byte) error) (domain.ClientView, error) {
	ctx, cancel := context.WithTimeout(ctx, f.limits.Login*3/4) // leaves time for a refusal
	defer cancel()
	var pause wait.Backoff
	for began := time.Now(); ; pause.Wait(ctx) {
		want, enough, _ := f.routes.freshness()
		view, err := f.view(ctx, clientID, want)
		if err != nil && domain.CodeOf(err) != domain.CodeClientNotFound && enough < want && ctx.Err() == nil {
			// The read model lags behind or is away for the newest position; its view
			// is brought up to date here.
			view, err = f.view(ctx, clientID, enough)
		}
		switch {
		case err == nil:
			if err = check(view.Client.State.PublicKey); err == nil {
				return view, nil
			}
			err = wire.Refuse(wire.CodeOf(err))
		case domain.CodeOf(err) == domain.CodeClientNotFound:
			// The same work and the same answer as for a wrong proof: a stranger must not
			// find out which clients there are.
			_ = check(nobody)
			err = wire.Refuse(wire.BadCredential)
		case ctx.Err() != nil:
			return view, later(time.Second)
		default:
			f.log.Warn("looking a client up at login", "client", clientID, "error", err)
			return view, later(time.Second)
		}
		if time.Since(began) < within && ctx.Err() == nil {
			continue
		}
		refusal := err.(*wire.Refusal)
		// A client that a read model does not have may still appear: the read model may
		// have been flushed and be filled again. So the refusal is not permanent, and an
		// agent believes it after some more tries.
		refusal.Permanent, refusal.RetryAfter = false, time.Second
		return view, refusal
	}
}

// standing gives the reason why a client may not have a session, or nil. owner is nil
// for a client that belongs to nobody.
func standing(c *domain.Client, owner *domain.User, key []byte) *wire.Refusal {
	switch {
	case c.ClaimedAs != 0:
		return claimed(c.ClaimedAs)
	case !c.Live():
		return wire.Refuse(wire.ClientDeleted)
	case c.Disabled:
		return disabled("the client is disabled")
	case owner != nil && owner.Deleted:
		return wire.Refuse(wire.ClientDeleted)
	case owner != nil && (owner.Disabled || !owner.Exists()):
		return disabled("the user of this client is disabled")
	case !bytes.Equal(c.PublicKey, key):
		return wire.Refuse(wire.ClientRevoked)
	}
	return nil
}

// claimed tells an agent its new identity. Nobody else is told: at login the proof
// comes first, and a live session has proved the credential.
func claimed(as int64) *wire.Refusal {
	r := wire.Refuse(wire.Claimed)
	r.ClientID = as
	return r
}

// disabled is not a permanent refusal: a disabled client may be enabled again.
func disabled(message string) *wire.Refusal {
	return &wire.Refusal{Code: wire.ClientDisabled, Message: message, RetryAfter: 2 * time.Second}
}

// welcome tells the agent that its login succeeded.
func (f *Forwarder) welcome(s *session, hello *wirepb.Hello) error {
	s.offered = f.neighbours.offer(s.client)
	s.link.Admit() // before the agent can know, because then it may open streams
	err := s.send(&wirepb.Control{Message: &wirepb.Control_Welcome{Welcome: &wirepb.Welcome{
		Version: hello.Version, ClientId: s.client, Session: s.id, Node: f.node, Forwarders: s.offered,
		LaneKey: f.parking.admit(s), PingSeconds: seconds(f.limits.Ping), DeadSeconds: seconds(f.limits.Dead), Api: f.apiFor(s.link.RemoteAddr())}}})
	if err != nil {
		s.leave(wire.TargetOffline)
		s.goodbye(err)
		return fmt.Errorf("write welcome: %w", err)
	}
	s.control.SetDeadline(time.Time{})
	f.metrics.welcomed.Inc()
	s.log.Info("agent connected", "from", network(s.link.RemoteAddr()), "agent_version", s.version, "instance", s.instance)
	return nil
}

// apiFor gives the URL of the REST API for an agent that comes from an address.
func (f *Forwarder) apiFor(from net.Addr) string {
	if f.api == nil {
		return ""
	}
	return f.api(from)
}

func seconds(d time.Duration) uint32 { return uint32(max(1, (d+time.Second-1)/time.Second)) }
