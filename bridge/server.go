package bridge

import (
	"cmp"
	"container/list"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime/debug"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/experimental"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	grpcpeer "google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/tunnox-net/tunnox/transport"
)

// ServerConfig configures a Server. Trust and Handle are required; the zero value of
// each other field is its default.
type ServerConfig struct {
	Trust Trust
	// Handle is called for each stream, in a goroutine of its own. The stream ends when
	// Handle returns. ctx ends when the stream is reset or its connection is lost;
	// Handle must return soon after that.
	Handle func(ctx context.Context, from Identity, stream transport.Stream)
	// Refuse is asked at the end of each handshake; an error ends the connection. nil:
	// every node of the cluster is let in. Expel ends the connections that there are.
	Refuse func(node string) error
	// MaxStreams bounds the streams of one connection; pools use 100. Default 256.
	MaxStreams int
	// Handshake bounds the time from the accept of a connection to its first RPC.
	// Default 10 s.
	Handshake time.Duration
	// MaxStrangers bounds the connections that have not proved a node yet. One more
	// closes the oldest of them. Default 256.
	MaxStrangers int
	// Log gets events of connections. Nothing is logged for a stream.
	Log *slog.Logger
}

func (c ServerConfig) withDefaults() ServerConfig {
	c.MaxStreams = cmp.Or(c.MaxStreams, 256)
	c.Handshake = cmp.Or(c.Handshake, 10*time.Second)
	c.MaxStrangers = cmp.Or(c.MaxStrangers, 256)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// Server accepts streams from peers.
type Server struct {
	config ServerConfig
	tls    *tls.Config
	grpc   *grpc.Server
	health *health.Server

	mu        sync.Mutex
	strangers list.List // of net.Conn, oldest first
	places    map[net.Conn]*list.Element
	peers     map[string]*source
}

// source is a peer that has connections to this server.
type source struct {
	count       traffic
	connections int                // guarded by Server.mu
	active      int                // guarded by Server.mu
	links       map[*link]struct{} // guarded by Server.mu
}

// NewServer makes a server; Serve starts it.
func NewServer(config ServerConfig) (*Server, error) {
	if err := config.Trust.check(); err != nil {
		return nil, err
	}
	if config.Handle == nil {
		return nil, errors.New("bridge: the server needs Handle")
	}
	s := &Server{
		config: config.withDefaults(), tls: config.Trust.serverTLS(), health: health.NewServer(),
		places: make(map[net.Conn]*list.Element), peers: make(map[string]*source),
	}
	s.grpc = grpc.NewServer(
		grpc.Creds(handshake{server: s.admit}),
		grpc.ForceServerCodecV2(newCodec()),
		grpc.ConnectionTimeout(s.config.Handshake),
		grpc.MaxConcurrentStreams(uint32(s.config.MaxStreams)),
		grpc.MaxHeaderListSize(maxHeaders), grpc.MaxRecvMsgSize(maxFrame),
		grpc.StaticStreamWindowSize(streamWindow), grpc.StaticConnWindowSize(connWindow),
		grpc.WriteBufferSize(writeBuffer), grpc.ReadBufferSize(readBuffer),
		experimental.BufferPool(received{}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: probeAfter, Timeout: probeFor}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: probeAfter / 2, PermitWithoutStream: true}),
		grpc.WaitForHandlers(true),
	)
	s.grpc.RegisterService(&grpc.ServiceDesc{
		ServiceName: forwardService,
		HandlerType: (*any)(nil),
		Streams: []grpc.StreamDesc{{
			StreamName: forwardName, ServerStreams: true, ClientStreams: true,
			Handler: func(_ any, rpc grpc.ServerStream) error { return s.forward(rpc) },
		}},
		Metadata: "bridge/bridgepb/bridge.proto",
	}, s)
	grpc_health_v1.RegisterHealthServer(s.grpc, s.health)
	s.health.SetServingStatus(forwardService, grpc_health_v1.HealthCheckResponse_SERVING)
	return s, nil
}

// Serve accepts connections from ln until Drain or Stop, and then closes ln.
func (s *Server) Serve(ln net.Listener) error {
	if err := s.grpc.Serve(&greeter{Listener: ln, server: s}); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("serve bridge: %w", err)
	}
	return nil
}

// greeter counts the connections of a listener as strangers.
type greeter struct {
	net.Listener
	server *Server
}

func (g *greeter) Accept() (net.Conn, error) {
	conn, err := g.Listener.Accept()
	if err == nil {
		g.server.greet(conn)
	}
	return conn, err
}

// greet counts a connection as a stranger. If there are too many strangers, it closes
// the oldest.
func (s *Server) greet(conn net.Conn) {
	s.mu.Lock()
	s.places[conn] = s.strangers.PushBack(conn)
	var oldest net.Conn
	if s.strangers.Len() > s.config.MaxStrangers {
		oldest = s.strangers.Front().Value.(net.Conn)
	}
	s.mu.Unlock()
	if oldest != nil {
		s.known(oldest)
		_ = oldest.Close()
	}
}

// known counts a connection as a stranger no more. It may be called again.
func (s *Server) known(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.places[conn]; e != nil {
		s.strangers.Remove(e)
		delete(s.places, conn)
	}
}

// admit makes the handshake, which succeeds for nodes only. gRPC has set a deadline.
func (s *Server) admit(raw net.Conn) (*link, error) {
	defer s.known(raw)
	below := transport.NewRecords(raw)
	conn := tls.Server(below, s.tls)
	l, err := (*link)(nil), conn.Handshake()
	if err == nil {
		l, err = newLink(conn, below)
	}
	if err == nil && s.config.Refuse != nil {
		err = s.config.Refuse(l.peer.Node)
	}
	if err != nil {
		_ = raw.Close()
		s.config.Log.Debug("bridge connection refused", "peer", raw.RemoteAddr(), "error", err)
		return nil, err
	}
	node := l.peer.Node
	s.mu.Lock()
	s.from(node).enter(l)
	s.mu.Unlock()
	l.onClose = func() { s.left(node, func(f *source) { f.connections--; delete(f.links, l) }) }
	s.config.Log.Debug("bridge connected", "peer", node, "address", raw.RemoteAddr())
	return l, nil
}

func (f *source) enter(l *link) {
	f.connections++
	if f.links == nil {
		f.links = map[*link]struct{}{}
	}
	f.links[l] = struct{}{}
}

// Expel ends the connections of a node that is no longer trusted, with their streams.
func (s *Server) Expel(node string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.peers[node]; f != nil {
		for l := range f.links {
			l.cut()
		}
	}
}

// from finds a peer, or adds it. The caller holds the lock.
func (s *Server) from(node string) *source {
	f := s.peers[node]
	if f == nil {
		f = new(source)
		s.peers[node] = f
	}
	return f
}

// left changes a peer's numbers, and drops a peer without connections and streams. The
// caller holds the lock.
func (s *Server) left(node string, change func(*source)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.from(node)
	if change(f); f.connections == 0 && f.active == 0 {
		delete(s.peers, node)
	}
}

// forward is one stream, from the begin of the RPC to its end. It receives in this
// goroutine; the handler runs in another.
func (s *Server) forward(rpc grpc.ServerStream) error {
	from, ok := grpcpeer.FromContext(rpc.Context())
	if !ok {
		return status.Error(codes.Unauthenticated, "no peer")
	}
	info, ok := from.AuthInfo.(linkInfo)
	if !ok {
		return status.Error(codes.Unauthenticated, "no node certificate")
	}
	identity := info.link.peer
	if !time.Now().Before(identity.Expires) {
		return status.Error(codes.Unauthenticated, "the node certificate has expired")
	}
	s.mu.Lock()
	f := s.from(identity.Node)
	f.active++
	s.mu.Unlock()
	defer s.left(identity.Node, func(f *source) { f.active-- })

	st := newStream(rpc, info.link.LocalAddr(), info.link.RemoteAddr(), &f.count)
	st.explain = func(err error) error {
		if info.link.closed.Load() {
			return fmt.Errorf("%w: %v", transport.ErrSessionClosed, err) // also when err is io.EOF
		}
		if errors.Is(err, io.EOF) { // for a reader, io.EOF is the end of complete data
			err = io.ErrUnexpectedEOF
		}
		return fmt.Errorf("%w: %w", transport.ErrReset, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	st.onBroken = cancel
	handled := make(chan struct{})
	go func() {
		defer close(handled)
		defer cancel()
		s.handle(ctx, identity, st)
	}()
	st.receive()
	<-handled
	if st.broke() {
		return status.Error(codes.Aborted, "the stream was reset")
	}
	return nil
}

// handle calls the handler, and ends the stream after it. A panic ends this stream
// only.
func (s *Server) handle(ctx context.Context, from Identity, st *stream) {
	defer func() {
		if v := recover(); v != nil {
			s.config.Log.Error("bridge stream ended by a panic", "peer", from.Node, "panic", v, "stack", string(debug.Stack()))
			_ = st.Reset()
			return
		}
		_ = st.Close()
	}()
	s.config.Handle(ctx, from, st)
}

// Drain tells peers that this node accepts no new streams, and waits for those it has.
// If ctx ends first, Drain returns an error and the caller should call Stop.
func (s *Server) Drain(ctx context.Context) error {
	s.health.Shutdown()
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		s.grpc.GracefulStop()
	}()
	select {
	case <-drained:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("drain bridge: %w", ctx.Err())
	}
}

// Stop ends all connections and streams and waits for the handlers.
func (s *Server) Stop() {
	s.health.Shutdown()
	s.grpc.Stop()
}

// SourceStats are a server's numbers for one peer.
type SourceStats struct {
	Node        string
	Connections int
	Active      int    // streams
	Sent        uint64 // bytes
	Received    uint64 // bytes
}
