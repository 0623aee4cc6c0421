package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"sync"
	"time"

	"github.com/tunnox-net/tunnox/transport"
	"github.com/tunnox-net/tunnox/wire"
	"github.com/tunnox-net/tunnox/wire/wirepb"
)

const (
	loginTimeout = 12 * time.Second // a forwarder gives up after 10
	silences     = 3                // how many answers may be missing, or limits of a dead peer pass, before a silent control stream alone ends the session
	writeTimeout = 10 * time.Second // a forwarder that does not read its control stream in this time is dead
)

// session is the agent's side of one welcomed link.
type session struct {
	a       *Agent
	log     *slog.Logger
	link    transport.Session
	control transport.Stream
	client  int64
	id      string
	node    string
	since   time.Time
	ping    time.Duration
	dead    time.Duration
	named   *view               // the configuration that Hello named; nil: none
	told    []*wirepb.Forwarder // the forwarders that Welcome named

	leaving bool // the forwarder asked to go elsewhere; guarded by sessions.mu
	doubted bool // the forwarder did not answer; guarded by sessions.mu

	lanes *lanes // nil: the session has none

	parts   wire.Assembly // of an assignment that has not come whole; used by read only
	ackMu   sync.Mutex    // one acknowledgement at a time
	asked   asked         // commands of this agent without a result yet
	writeMu sync.Mutex    // one control message at a time
	left    chan struct{} // closed when the forwarder asks to go elsewhere
	leave   sync.Once
	over    chan struct{} // closed when err is set
	err     error
}

// connect runs one session over a link, from the login to the end. It returns nil when
// the agent leaves the session, because the forwarder asked for that or is silent; the
// session then still serves its live streams. since is the time when the session began,
// and zero if it did not begin.
func (a *Agent) connect(ctx context.Context, c *claim, link transport.Session) (since time.Time, err error) {
	server := c.wanted.address
	stirred := a.stir()
	s, err := a.login(ctx, link, server)
	if err != nil {
		link.Close()
		return time.Time{}, err
	}
	since = time.Now()
	s.log.Info("connected", "server", server)
	a.unsure.Store(0)
	a.fence.lower()
	a.roster.welcomed(c, s.node)
	a.sessions.add(s)
	a.roster.tell(s.told) // after add: the Hello of a session that starts now must name this node
	s.serve(ctx)
	a.seals.loggedIn(s.client)
	select {
	case <-stirred: // the machine slept or moved during the login, when this session was not listed
		a.start(func() { a.check(ctx, s) })
	default:
	}
	if a.online != nil {
		a.online(s.client, s.node)
	}
	select {
	case <-s.over:
		reason := s.err
		if ctx.Err() != nil {
			reason = errors.New("the agent was asked to end")
		}
		s.log.Info("disconnected", "server", server, "reason", reason)
		return since, s.err
	case <-s.left:
		a.start(func() { a.depart(ctx, s) })
		return since, nil
	}
}

// login proves the agent's identity, or registers a new one, over a new link.
func (a *Agent) login(ctx context.Context, link transport.Session, server string) (*session, error) {
	ctx, cancel := context.WithTimeout(ctx, loginTimeout)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { link.Close() })
	defer stop()
	control, err := link.Accept(ctx)
	if err != nil {
		return nil, fmt.Errorf("log in: %w", err)
	}
	deadline, _ := ctx.Deadline()
	control.SetDeadline(deadline)
	m, err := wire.ReadControl(control, wire.MaxHandshake)
	if err != nil {
		return nil, fmt.Errorf("log in: read challenge: %w", err)
	}
	if refused := m.GetRefused(); refused != nil {
		return nil, fmt.Errorf("log in: %w", wire.RefusalFrom(refused))
	}
	named := a.listeners.running()
	hello, err := a.hello(m.GetChallenge(), link, named)
	if err != nil {
		return nil, fmt.Errorf("log in: %w", err)
	}
	if err := wire.WriteControl(control, &wirepb.Control{Message: &wirepb.Control_Hello{Hello: hello}}); err != nil {
		return nil, fmt.Errorf("log in: write hello: %w", err)
	}
	if m, err = wire.ReadControl(control, wire.MaxHandshake); err != nil {
		return nil, fmt.Errorf("log in: read welcome: %w", err)
	}
	switch m := m.GetMessage().(type) {
	case *wirepb.Control_Welcome:
		control.SetDeadline(time.Time{})
		s, err := a.welcomed(link, control, m.Welcome, server)
		if s != nil {
			s.named, s.told = named, m.Welcome.GetForwarders()
		}
		return s, err
	case *wirepb.Control_Refused:
		return nil, fmt.Errorf("log in: %w", wire.RefusalFrom(m.Refused))
	}
	return nil, fmt.Errorf("log in: %w", wire.Unexpected(m, "welcome or refused"))
}

// hello answers the challenge.
func (a *Agent) hello(challenge *wirepb.Challenge, link transport.Session, named *view) (*wirepb.Hello, error) {
	if challenge == nil {
		return nil, fmt.Errorf("the forwarder sent no challenge: %w", wire.Malformed)
	}
	version, err := wire.ChooseVersion(challenge.MinVersion, challenge.MaxVersion)
	if err != nil {
		return nil, err
	}
	a.idMu.Lock()
	id, instance := a.identity, a.instance
	a.idMu.Unlock()
	signature, err := id.Credential.Sign(wire.Proof{Version: version, Nonce: challenge.Nonce, Binding: link.Binding(),
		ClientID: id.ClientID, Instance: instance})
	if err != nil {
		return nil, err
	}
	hello := &wirepb.Hello{Version: version, ClientId: id.ClientID, Instance: instance,
		AgentVersion: a.version, Signature: signature, Nodes: a.sessions.nodes(), Protocols: a.offers(link)}
	if id.ClientID == 0 {
		hello.Register, hello.PublicKey, hello.Name, hello.Invite = true, id.Credential.PublicKey(), a.name, a.invite
		hello.Reachable = a.reachable
	}
	if named != nil {
		hello.ConfigVersion, hello.ConfigDigest = named.version, named.digest()
	}
	return hello, nil
}

// welcomed makes the session, and saves an identity that was just registered.
func (a *Agent) welcomed(link transport.Session, control transport.Stream, w *wirepb.Welcome, server string) (*session, error) {
	a.idMu.Lock()
	defer a.idMu.Unlock()
	switch {
	case a.identity.ClientID == 0 && w.ClientId > 0:
		a.identity.ClientID = w.ClientId
		if err := a.state.Save(a.identity, server); err != nil {
			return nil, err
		}
		a.log.Info("registered", "client", w.ClientId)
	case a.identity.ClientID != w.ClientId:
		return nil, fmt.Errorf("log in: welcomed as client %d instead of %d: %w", w.ClientId, a.identity.ClientID, wire.Malformed)
	}
	a.learnAPI(w.Api, server)
	seconds := func(n uint32, least, most time.Duration) time.Duration {
		return max(least, min(time.Duration(n)*time.Second, most))
	}
	s := &session{a: a, link: link, control: control, client: w.ClientId, id: w.Session, node: w.Node, since: time.Now(),
		log:  a.log.With(slog.Int64("client", w.ClientId), slog.String("node", w.Node), slog.String("session", w.Session)),
		ping: seconds(w.PingSeconds, time.Second, time.Hour),
		dead: seconds(w.DeadSeconds, 2*time.Second, time.Minute), left: make(chan struct{}), over: make(chan struct{})}
	if len(w.LaneKey) > 0 && transport.HasLanes(link) && !a.noLanes {
		s.lanes = &lanes{s: s, key: w.LaneKey, asking: make(chan struct{}, lanesMade), giving: make(chan struct{}, lanesMade)}
	}
	return s, nil
}

// learnAPI keeps the first address of the API that the server told. A later one is not
// believed: people's passwords go there, and a forwarder may be in the wrong hands one
// day. The caller holds idMu.
func (a *Agent) learnAPI(told, server string) {
	if told == "" || a.state == nil || a.state.Joined == nil || a.state.Joined.API != "" {
		return
	}
	if u, err := url.Parse(told); err != nil || u.Host == "" || u.User != nil || u.Scheme != "https" && u.Scheme != "http" {
		return
	}
	joined := *a.state.Joined
	joined.API = told
	a.state.Joined = &joined
	if err := a.state.Save(a.identity, server); err != nil {
		a.log.Warn("cannot keep the address of the API", "error", err)
	}
}

// serve starts the goroutines that serve the session until the session or ctx ends.
func (s *session) serve(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(ctx, func() { s.link.Close() })
	s.a.start(func() { defer s.link.Close(); s.pings(ctx) })
	s.a.start(func() { defer s.link.Close(); s.accept(ctx) })
	s.a.start(func() {
		defer func() {
			s.a.sessions.remove(s)
			s.lanes.close()
			s.a.listeners.drop(s)
			stop()
			s.link.Close()
			cancel()
			if s.err == nil {
				s.err = errors.New("the session ended")
			}
			close(s.over)
		}()
		s.err = s.read()
	})
}

// read handles control messages until the session ends. The transport notices within
// its limit when no bytes come from the forwarder. read notices when only the control
// stream is silent, because the forwarder no longer answers its pings. That takes
// longer: on a slow link full of data, control messages may wait in a queue.
func (s *session) read() error {
	patience := silences * max(s.dead, s.ping)
	for {
		s.control.SetReadDeadline(time.Now().Add(patience))
		m, err := wire.ReadControl(s.control, wire.MaxControl)
		switch {
		case err == nil:
		case isTimeout(err):
			return fmt.Errorf("no message came from the forwarder for %v", patience)
		case errors.Is(err, io.EOF):
			return errors.New("the forwarder closed the session")
		default:
			if cause := s.link.Err(); cause != nil {
				err = cause
			}
			return fmt.Errorf("session lost: %w", err)
		}
		s.a.sessions.trust(s)
		switch m := m.GetMessage().(type) {
		case *wirepb.Control_Assign:
			err = s.assigned(m.Assign)
		case *wirepb.Control_Ping:
			err = s.send(&wirepb.Control{Message: &wirepb.Control_Pong{Pong: &wirepb.Pong{Id: m.Ping.GetId()}}})
		case *wirepb.Control_GoAway:
			s.goElsewhere("the forwarder asks to go elsewhere", "code", m.GoAway.GetCode())
		case *wirepb.Control_Forwarders:
			if !s.a.sessions.isLeaving(s) {
				s.a.roster.tell(m.Forwarders.GetForwarders())
				s.a.missed(s.a.roster.nodes())
			}
		case *wirepb.Control_Result:
			s.asked.answered(m.Result)
		case *wirepb.Control_Refused:
			return wire.RefusalFrom(m.Refused)
		}
		if err != nil {
			return fmt.Errorf("session lost: %w", err)
		}
	}
}

// pings sends a ping over the control stream from time to time, so that the forwarder
// has to answer there. The transport checks that the peer is alive.
func (s *session) pings(ctx context.Context) {
	tick := time.NewTicker(s.ping)
	defer tick.Stop()
	for id := uint64(1); ; id++ {
		select {
		case <-tick.C:
		case <-s.link.Done():
			return
		case <-ctx.Done():
			return
		}
		if s.send(&wirepb.Control{Message: &wirepb.Control_Ping{Ping: &wirepb.Ping{Id: id}}}) != nil {
			return
		}
	}
}

// accept takes the forwarder's streams to the services behind this agent.
func (s *session) accept(ctx context.Context) {
	for {
		stream, err := s.link.Accept(ctx)
		if err != nil {
			return
		}
		s.a.start(func() { s.a.target.serve(ctx, s, stream) })
	}
}

// assigned applies an assignment when its last part has come.
func (s *session) assigned(part *wirepb.Assign) error {
	whole, err := s.parts.Add(part)
	if err != nil {
		return err
	}
	if whole == nil {
		return nil
	}
	ack := s.a.listeners.apply(s, whole)
	if ack == nil {
		return nil
	}
	return s.acknowledge(ack)
}

// acknowledge tells the forwarder which configuration the agent runs.
func (s *session) acknowledge(ack *wirepb.Ack) error {
	s.ackMu.Lock() // the parts of two acknowledgements do not mix
	defer s.ackMu.Unlock()
	for _, part := range wire.AckParts(ack) {
		if err := s.send(&wirepb.Control{Message: &wirepb.Control_Ack{Ack: part}}); err != nil {
			return err
		}
	}
	return nil
}

// send writes one control message.
func (s *session) send(m *wirepb.Control) error {
	s.writeMu.Lock()
	defer s.writeMu.Unlock()
	s.control.SetWriteDeadline(time.Now().Add(writeTimeout))
	return wire.WriteControl(s.control, m)
}

func isTimeout(err error) bool {
	var timeout interface{ Timeout() bool }
	return errors.As(err, &timeout) && timeout.Timeout()
}
