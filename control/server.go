package control

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/tunnox-net/tunnox/control/controlpb"
	"github.com/tunnox-net/tunnox/domain"
)

// Views gives what forwarders must know.
type Views interface {
	// ClientView gives what must be known of one client to serve it, at min or later. A
	// client that does not exist is a [domain.CodeClientNotFound].
	ClientView(ctx context.Context, clientID int64, min domain.Position) (domain.ClientView, error)
	// IngressView gives what must be known to serve what comes in there, at min or
	// later.
	IngressView(ctx context.Context, what domain.Ingress, min domain.Position) (domain.IngressView, error)
}

// Executor decides commands and appends what they come to.
type Executor interface {
	Submit(ctx context.Context, s domain.Submission) (domain.Receipt, error)
	NextID(ctx context.Context, sequence domain.Sequence) (int64, error)
}

// ServerConfig says what a server is made of. Authority, JoinTokens, Log, Head
// and Executor are required; the zero value of each other field is its default.
type ServerConfig struct {
	Authority  *Authority
	JoinTokens *JoinTokens
	// Log is the log: what the read models cannot tell is read there, and what a
	// client may do is decided from it.
	Log Log
	// Head gives the last position of the log.
	Head     func(context.Context) (domain.Position, error)
	Executor Executor
	// Views are the read models; nil: every view is folded from the log.
	Views Views
	// Keep keeps a view that the read models could not give, for other forwarders to
	// find; nil: nobody does.
	Keep func(ctx context.Context, view domain.ClientView) error
	// ViewsWait bounds how long a read model is waited for before the log is
	// asked. Default 300 ms.
	ViewsWait time.Duration
	// Proofs proves keys to agents; nil: none are proved.
	Proofs Proofs
	// Usage is where nodes' reports of usage are counted; nil: nowhere, and nodes
	// keep what they count.
	Usage Usage
	// Admit is asked before a node gets a certificate; an error keeps it out, at
	// the latest when the one it has ends. nil: whoever has the join token comes in.
	Admit func(ctx context.Context, node, source string) error
	// Connected tells whether the client has a session at the node: a node asks for
	// those only. nil: every node is believed.
	Connected func(ctx context.Context, clientID int64, node string) (bool, error)
	// Public asks where visitors reach mappings; what it gives says it of one, "" for
	// nowhere or not known. nil: nothing is said.
	Public func(ctx context.Context) func(*domain.Mapping) string
	// Certificates has the certificates of public hosts; nil: this control plane orders
	// none.
	Certificates Certificates
	// Logins has visitors log in at OpenID providers; nil: they cannot.
	Logins Logins
	// AnonymousLimits is the quota an anonymous client starts from.
	AnonymousLimits domain.Limits
	// RefuseAnonymous gives no identities to agents that have none.
	RefuseAnonymous bool
	// DrawID draws an id for an anonymous client; nil: at random.
	DrawID func() int64
	// ConnectionAge is how long a connection takes calls; then the node makes
	// another, with the certificate it has by then. Default 30 min.
	ConnectionAge time.Duration
	// Handshake bounds the time from a connection to its first call, and how long
	// somebody without a certificate may stay. Default 10 s.
	Handshake time.Duration
	// MaxStrangers bounds connections that have not proved to be a node's; the
	// oldest goes when one more comes. Default 256.
	MaxStrangers int
	Now          func() time.Time
	Logger       *slog.Logger
	Metrics      *ServerMetrics
}

func (c *ServerConfig) check() error {
	var faults []error
	for _, part := range []struct {
		name    string
		missing bool
	}{{"authority", c.Authority == nil}, {"join tokens", c.JoinTokens == nil}, {"log", c.Log == nil},
		{"head of the log", c.Head == nil}, {"executor", c.Executor == nil}} {
		if part.missing {
			faults = append(faults, errors.New("no "+part.name))
		}
	}
	if len(faults) > 0 {
		return fmt.Errorf("build State service: %w", errors.Join(faults...))
	}
	c.ViewsWait = cmp.Or(c.ViewsWait, 300*time.Millisecond)
	c.ConnectionAge = cmp.Or(c.ConnectionAge, 30*time.Minute)
	c.Handshake = cmp.Or(c.Handshake, 10*time.Second)
	c.MaxStrangers = cmp.Or(c.MaxStrangers, 256)
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Metrics == nil {
		c.Metrics = NewServerMetrics()
	}
	if c.DrawID == nil {
		c.DrawID = drawAnonymousID
	}
	return nil
}

const (
	maxRequest = 64 << 10 // bytes of a message to the State service
	maxEnroll  = 16 << 10 // bytes of a message from a stranger
	maxHeaders = 8 << 10
	maxCalls   = 1000 // at a time on a connection
)

// Server is the State service. It answers nodes; who shows no certificate is
// offered [controlpb.EnrollmentServer] only, by a gRPC server of its own that
// knows nothing else.
type Server struct {
	config   ServerConfig
	folds    *folds
	standing standing
	tls      *tls.Config
	nodes    *grpc.Server // the State service, for connections with a node certificate
	newly    *grpc.Server // enrolment, for connections without a certificate
	health   *health.Server
	calm     *circuit // in front of the read models

	keys    positions
	sealing chan struct{}  // a slot for each password that is being sealed
	keeping chan struct{}  // a slot for each view that is being kept
	kept    sync.WaitGroup // of those

	mu      sync.Mutex
	own     *Issued                   // guarded by mu; renewed when a handshake needs it
	door    *door                     // guarded by mu
	serving map[net.Listener]struct{} // guarded by mu
	stopped bool                      // guarded by mu
}

// NewServer makes a server; Serve starts it.
func NewServer(config ServerConfig) (*Server, error) {
	if err := config.check(); err != nil {
		return nil, err
	}
	s := &Server{config: config, sealing: newSealing(), folds: newFolds(config.Log), health: health.NewServer(),
		calm: newCircuit(circuitOptions{}), keeping: make(chan struct{}, keptAtOnce), serving: map[net.Listener]struct{}{}}
	s.door = newDoor(config.MaxStrangers, config.Metrics)
	s.tls = serverTLS(s.certificate, config.Authority.Roots(), config.Now)
	options := func(message, calls int, age time.Duration) []grpc.ServerOption {
		return []grpc.ServerOption{
			grpc.Creds(shaken{}), grpc.ConnectionTimeout(config.Handshake),
			grpc.MaxRecvMsgSize(message), grpc.MaxConcurrentStreams(uint32(calls)), grpc.MaxHeaderListSize(maxHeaders),
			grpc.KeepaliveParams(keepalive.ServerParameters{Time: 10 * time.Second, Timeout: 5 * time.Second,
				MaxConnectionAge: age, MaxConnectionAgeGrace: 10 * time.Second}),
			grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
			grpc.UnaryInterceptor(s.unary), grpc.StreamInterceptor(s.stream), grpc.WaitForHandlers(true),
		}
	}
	s.nodes = grpc.NewServer(options(maxRequest, maxCalls, config.ConnectionAge)...)
	controlpb.RegisterStateServer(s.nodes, &state{Server: s})
	grpc_health_v1.RegisterHealthServer(s.nodes, s.health)
	s.health.SetServingStatus(controlpb.State_ServiceDesc.ServiceName, grpc_health_v1.HealthCheckResponse_SERVING)
	s.newly = grpc.NewServer(options(maxEnroll, 1, config.Handshake)...)
	controlpb.RegisterEnrollmentServer(s.newly, &enrollment{Server: s})
	return s, nil
}

// certificate gives the service's own certificate, a new one when two thirds of
// the old one's life have passed.
func (s *Server) certificate() (*tls.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.config.Now()
	if s.own != nil {
		leaf := s.own.Certificate.Leaf
		if due := leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore) * 2 / 3); now.Before(due) && !now.Before(leaf.NotBefore) {
			return &s.own.Certificate, nil
		}
	}
	next, err := s.config.Authority.IssueState()
	if err != nil {
		return nil, err
	}
	s.own = &next
	return &next.Certificate, nil
}

// Serve takes connections from ln, which it closes in the end, until Drain or
// Stop. It may be called for several listeners.
func (s *Server) Serve(ln net.Listener) error {
	nodes, newly := newHandover(ln.Addr()), newHandover(ln.Addr())
	s.mu.Lock()
	if s.stopped {
		s.mu.Unlock()
		return ln.Close()
	}
	s.serving[ln] = struct{}{}
	s.mu.Unlock()
	var running sync.WaitGroup
	running.Go(func() { _ = s.nodes.Serve(nodes) }) // ends when the server is stopped
	running.Go(func() { _ = s.newly.Serve(newly) })
	err := s.accept(ln, nodes, newly)
	_ = ln.Close()
	_, _ = nodes.Close(), newly.Close()
	running.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.serving, ln)
	if s.stopped {
		return nil
	}
	return fmt.Errorf("serve State service: %w", err)
}

// accept greets connections until the listener ends. Nothing is read here, and a
// process that is out of descriptors goes on when it has some again.
func (s *Server) accept(ln net.Listener, nodes, newly *handover) error {
	var shaking sync.WaitGroup
	defer shaking.Wait() // until then there is somebody behind the door
	pause := 5 * time.Millisecond
	for {
		raw, err := ln.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) || s.isStopped() {
				return err
			}
			s.config.Logger.Warn("accepting nodes", "error", err)
			time.Sleep(pause)
			pause = min(2*pause, time.Second)
			continue
		}
		pause = 5 * time.Millisecond
		s.door.enter(raw)
		shaking.Go(func() { s.greet(raw, nodes, newly) })
	}
}

func (s *Server) isStopped() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stopped
}

// greet makes the handshake and hands the connection to the server it may talk to.
func (s *Server) greet(raw net.Conn, nodes, newly *handover) {
	conn := tls.Server(raw, s.tls)
	ctx, cancel := context.WithTimeout(context.Background(), s.config.Handshake)
	defer cancel()
	err := conn.HandshakeContext(ctx)
	if err == nil && conn.ConnectionState().NegotiatedProtocol != alpn[0] {
		err = errors.New("it does not speak HTTP/2")
	}
	if err != nil {
		s.config.Metrics.refused.WithLabelValues("handshake").Inc()
		s.config.Logger.Debug("connection to the State service turned away", "from", raw.RemoteAddr(), "error", err)
		s.door.leave(raw)
		_ = raw.Close()
		return
	}
	certs := conn.ConnectionState().PeerCertificates
	if len(certs) == 0 {
		newly.give(&caller{Conn: conn, onClose: func() { s.door.leave(raw) }})
		return
	}
	node, err := nodeOf(certs[0])
	if err != nil { // the handshake has seen to it
		s.door.leave(raw)
		_ = raw.Close()
		return
	}
	s.door.leave(raw)
	s.config.Metrics.nodes.Inc()
	nodes.give(&caller{Conn: conn, node: node, certificate: certs[0], expires: certs[0].NotAfter, onClose: s.config.Metrics.nodes.Dec})
}

// callerOf gives the node behind a call. It is asked at every call: a connection
// outlives its certificate, and the trust in its node.
func (s *Server) callerOf(ctx context.Context) (*caller, error) {
	from, err := s.certifiedCaller(ctx)
	if err == nil && s.revoked(ctx, from.node) {
		from.expire()
		s.config.Metrics.refused.WithLabelValues("revoked").Inc()
		return nil, &domain.Error{Code: domain.CodeNodeRevoked, Message: "The node " + from.node + " was revoked."}
	}
	return from, err
}

func (s *Server) certifiedCaller(ctx context.Context) (*caller, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil, status.Error(codes.Unauthenticated, "no peer")
	}
	info, ok := p.AuthInfo.(callerInfo)
	if !ok || info.caller.node == "" {
		return nil, status.Error(codes.Unauthenticated, "a node certificate is required")
	}
	if !s.config.Now().Before(info.caller.expires) {
		info.caller.expire()
		return nil, status.Error(codes.Unauthenticated, "the node certificate has expired")
	}
	return info.caller, nil
}

// authorise lets nodes call everything and strangers enrol.
func (s *Server) authorise(ctx context.Context, method string) error {
	if method == controlpb.Enrollment_Enroll_FullMethodName {
		return nil
	}
	if strings.HasPrefix(method, "/"+grpc_health_v1.Health_ServiceDesc.ServiceName+"/") {
		_, err := s.certifiedCaller(ctx) // else a revoked node would try again and never hear why
		return err
	}
	_, err := s.callerOf(ctx)
	return err
}

func (s *Server) unary(ctx context.Context, request any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (answer any, err error) {
	began := time.Now()
	defer func() { err = s.finish(info.FullMethod, began, recover(), err) }()
	if err := s.authorise(ctx, info.FullMethod); err != nil {
		return nil, err
	}
	return handle(ctx, request)
}

func (s *Server) stream(service any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) (err error) {
	began := time.Now()
	defer func() { err = s.finish(info.FullMethod, began, recover(), err) }()
	if err := s.authorise(stream.Context(), info.FullMethod); err != nil {
		return err
	}
	return handle(service, stream)
}

// finish turns how a call ended into what goes over the wire, and counts it.
func (s *Server) finish(method string, began time.Time, panicked any, err error) error {
	if panicked != nil {
		s.config.Metrics.panics.Inc()
		s.config.Logger.Error("panic in a call, which ends it", "method", method, "panic", panicked, "stack", string(debug.Stack()))
		err = status.Error(codes.Internal, "The control plane failed; its log says how.")
	}
	if _, ok := status.FromError(err); !ok {
		st, internal := statusOf(err)
		if internal {
			s.config.Logger.Error("a call of the State service failed", "method", method, "error", err)
		} else if st.Code() == codes.Unavailable || domain.CodeOf(err) == domain.CodeOtherVersion {
			s.config.Logger.Warn("a call of the State service could not be served", "method", method, "error", err)
		}
		err = st.Err()
	}
	s.config.Metrics.calls.WithLabelValues(method, status.Code(err).String()).Inc()
	s.config.Metrics.latency.WithLabelValues(method).Observe(time.Since(began).Seconds())
	return err
}

// Drain tells nodes to go to another control plane, and waits for the calls that
// run. When ctx ends first it returns its error, and Stop is called for.
func (s *Server) Drain(ctx context.Context) error {
	s.health.Shutdown()
	s.shut()
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		s.newly.Stop()
		s.nodes.GracefulStop()
		s.kept.Wait()
	}()
	select {
	case <-drained:
		return nil
	case <-ctx.Done():
		s.nodes.Stop() // GracefulStop returns then
		<-drained
		return fmt.Errorf("drain State service: %w", ctx.Err())
	}
}

// Stop ends all connections and calls and waits for them.
func (s *Server) Stop() {
	s.health.Shutdown()
	s.shut()
	s.newly.Stop()
	s.nodes.Stop()
	s.kept.Wait()
}

// shut closes the listeners and the connections that are nobody's yet.
func (s *Server) shut() {
	s.mu.Lock()
	s.stopped = true
	listeners := s.serving
	s.serving = map[net.Listener]struct{}{}
	s.mu.Unlock()
	for ln := range listeners {
		_ = ln.Close()
	}
	s.door.close()
}
