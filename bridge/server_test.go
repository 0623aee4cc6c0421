package bridge

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/tunnox-net/tunnox/bridge/bridgepb"
	"github.com/tunnox-net/tunnox/test/pace"
	"github.com/tunnox-net/tunnox/transport"
)

func TestDrainLetsStreamsEndAndTakesNoNewOnes(t *testing.T) {
	ca := newAuthority(t)
	to := startNode(t, ca, "node-002", echo, nil)
	from := startNode(t, ca, "node-001", nil, nil)
	s, err := from.pool.Open(within(t, 10*time.Second), to.Peer)
	if err != nil {
		t.Fatal(err)
	}
	if err := roundTrip(s, "before"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	drained := make(chan error, 1)
	go func() { drained <- to.server.Drain(ctx) }()
	eventually(t, "the pool knows", func() bool { return from.stats("node-002").Connections == 0 })
	if _, err := from.pool.Open(within(t, 10*time.Second), to.Peer); !errors.Is(err, ErrUnreachable) {
		t.Errorf("a new stream: %v", err)
	}
	if err := roundTrip(s, "during"); err != nil {
		t.Errorf("the old stream: %v", err)
	}
	select {
	case err := <-drained:
		t.Errorf("drained with a stream: %v", err)
	default:
	}
	_ = s.CloseWrite()
	if rest, err := io.ReadAll(s); err != nil || len(rest) != 0 {
		t.Errorf("%q, %v", rest, err)
	}
	_ = s.Close()
	if err := <-drained; err != nil {
		t.Error(err)
	}
	eventually(t, "its connections are gone", func() bool { return to.ln.open.Load() == 0 })
}

// TestARevokedPeerIsExpelled: its streams end both ways, and it connects no more.
func TestARevokedPeerIsExpelled(t *testing.T) {
	ca := newAuthority(t)
	var revoked atomic.Bool
	refuse := func(node string) error {
		if revoked.Load() && node == "node-001" {
			return errors.New("revoked")
		}
		return nil
	}
	to := startNode(t, ca, "node-002", echo, func(p *PoolConfig, s *ServerConfig) { p.Refuse, s.Refuse = refuse, refuse })
	from := startNode(t, ca, "node-001", echo, nil)
	var streams []transport.Stream
	for _, way := range []struct {
		pool *Pool
		to   Peer
	}{{from.pool, to.Peer}, {to.pool, from.Peer}} {
		s, err := way.pool.Open(within(t, 10*time.Second), way.to)
		if err != nil {
			t.Fatal(err)
		}
		if err := roundTrip(s, "before"); err != nil {
			t.Fatal(err)
		}
		streams = append(streams, s)
	}
	revoked.Store(true)
	to.server.Expel("node-001")
	to.pool.Expel("node-001")
	to.server.Expel("node-009") // nobody
	for i, s := range streams {
		if _, err := io.ReadAll(s); err == nil {
			t.Errorf("stream %d ended as if it were whole", i)
		}
		_ = s.Close()
	}
	eventually(t, "its connections are gone", func() bool { return to.ln.open.Load() == 0 && to.stats("node-001").Connections == 0 })
	if _, err := from.pool.Open(within(t, 10*time.Second), to.Peer); !errors.Is(err, ErrUnreachable) {
		t.Errorf("from the revoked node: %v", err)
	}
	if _, err := to.pool.Open(within(t, 10*time.Second), from.Peer); !errors.Is(err, ErrUnreachable) {
		t.Errorf("to the revoked node: %v", err)
	}
}

func TestDrainHasAnEnd(t *testing.T) {
	two := startTwo(t, nil)
	p := two.open(t)
	if err := two.b.server.Drain(timeout(t, 50*time.Millisecond)); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got the error %v, want %v", err, context.DeadlineExceeded)
	}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		two.b.server.Stop()
	}()
	for _, s := range []transport.Stream{p.opener, p.acceptor} {
		if _, err := s.Read(make([]byte, 1)); !errors.Is(err, transport.ErrSessionClosed) {
			t.Errorf("after Stop: %v", err)
		}
	}
	_ = p.acceptor.Close() // its handler returns; Stop waits for that
	<-stopped
}

// Nodes drain one after the other while streams are opened all the time. Each Open
// either succeeds at once or says that the peer did not see the stream.
func TestNoStreamIsLostInADrain(t *testing.T) {
	ca := newAuthority(t)
	from := startNode(t, ca, "node-001", nil, nil)
	for range 5 {
		to := startNode(t, ca, "node-002", echo, nil)
		began, over := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(over)
			for i := 0; ; i++ {
				s, err := from.pool.Open(within(t, 10*time.Second), to.Peer)
				if errors.Is(err, ErrUnreachable) || errors.Is(err, transport.ErrSessionClosed) {
					return // the port is closed: the caller opens the stream elsewhere
				}
				if err != nil {
					t.Error(err)
					return
				}
				if err := roundTrip(s, "all or nothing"); err != nil {
					t.Errorf("stream %d was taken and lost: %v", i, err)
				}
				_ = s.Close()
				if i == 20 {
					close(began)
				}
			}
		}()
		<-began
		if err := to.server.Drain(within(t, 10*time.Second)); err != nil {
			t.Error(err)
		}
		<-over
	}
}

func TestSlowStrangersPushEachOtherOut(t *testing.T) {
	ca := newAuthority(t)
	to := startNode(t, ca, "node-002", echo, func(_ *PoolConfig, s *ServerConfig) {
		s.MaxStrangers, s.Handshake = 10, 500*time.Millisecond
	})
	from := startNode(t, ca, "node-001", nil, nil)
	var silent []net.Conn
	for range 50 {
		conn, err := net.Dial("tcp", to.Address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		silent = append(silent, conn)
	}
	eventually(t, "only so many are kept", func() bool { return to.ln.open.Load() <= 10 })
	s, err := from.pool.Open(within(t, 10*time.Second), to.Peer)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := roundTrip(s, "a node gets through"); err != nil {
		t.Error(err)
	}
	for _, conn := range silent { // the others are closed after some time
		_ = conn.SetReadDeadline(time.Now().Add(pace.Guard))
		if _, err := conn.Read(make([]byte, 1)); errors.Is(err, context.DeadlineExceeded) {
			t.Error("a silent connection stays")
		}
	}
	// A connection is closed before it stops being counted.
	eventually(t, "no stranger is counted", func() bool {
		to.server.mu.Lock()
		defer to.server.mu.Unlock()
		return len(to.server.places) == 0 && to.server.strangers.Len() == 0
	})
}

// generated is a client made of the generated code and plain gRPC, as an implementation
// in another language would be.
func generated(t *testing.T, ca *authority, to *node) grpc.ClientStream {
	t.Helper()
	config, err := ca.trust(t, "node-001").clientTLS(to.Node)
	if err != nil {
		t.Fatal(err)
	}
	cc, err := grpc.NewClient("passthrough:///"+to.Address, grpc.WithTransportCredentials(credentials.NewTLS(config)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cc.Close() })
	rpc, err := cc.NewStream(within(t, 10*time.Second), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, forwardMethod)
	if err != nil {
		t.Fatal(err)
	}
	return rpc
}

func data(b []byte) *bridgepb.Frame {
	return &bridgepb.Frame{Part: &bridgepb.Frame_Data{Data: b}}
}

func end(e bridgepb.End) *bridgepb.Frame {
	return &bridgepb.Frame{Part: &bridgepb.Frame_End{End: e}}
}

func TestTheProtocolIsWhatTheProtoFileSays(t *testing.T) {
	ca := newAuthority(t)
	to := startNode(t, ca, "node-002", echo, nil)
	rpc := generated(t, ca, to)
	sent := noise(window / 2)
	for part := sent; len(part) > 0; part = part[32<<10:] {
		if err := rpc.SendMsg(data(part[:32<<10])); err != nil {
			t.Fatal(err)
		}
	}
	if err := rpc.SendMsg(end(bridgepb.End_END_WRITE)); err != nil {
		t.Fatal(err)
	}
	var got []byte
	granted, ended := 0, false
	for !ended {
		var f bridgepb.Frame
		if err := rpc.RecvMsg(&f); err != nil {
			t.Fatal(err)
		}
		got = append(got, f.GetData()...)
		granted += int(f.GetGrant())
		ended = f.GetEnd() != 0
	}
	if !bytes.Equal(got, sent) {
		t.Errorf("%d bytes came back", len(got))
	}
	if granted > len(sent) {
		t.Errorf("%d bytes granted for %d", granted, len(sent))
	}
	if err := rpc.CloseSend(); err != nil {
		t.Fatal(err)
	}
	var f bridgepb.Frame
	for {
		err := rpc.RecvMsg(&f) // END_BOTH may come after END_WRITE
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestPeersThatBreakTheProtocolAreReset(t *testing.T) {
	ca := newAuthority(t)
	idle := func(ctx context.Context, _ Identity, _ transport.Stream) { <-ctx.Done() }
	to := startNode(t, ca, "node-002", idle, nil)
	for name, c := range map[string]struct {
		send func(rpc grpc.ClientStream)
		want codes.Code
	}{
		"more than the window": {func(rpc grpc.ClientStream) {
			for range window/maxData + 1 {
				_ = rpc.SendMsg(data(make([]byte, maxData)))
			}
		}, codes.Aborted},
		"more than a frame": {func(rpc grpc.ClientStream) {
			_ = rpc.SendMsg(data(make([]byte, maxData+1)))
		}, codes.Internal},
		"an empty frame": {func(rpc grpc.ClientStream) { _ = rpc.SendMsg(new(bridgepb.Frame)) }, codes.Internal},
		"an absurd grant": {func(rpc grpc.ClientStream) {
			_ = rpc.SendMsg(&bridgepb.Frame{Part: &bridgepb.Frame_Grant{Grant: maxGrant}})
		}, codes.Aborted},
		"an end by EOF": {func(rpc grpc.ClientStream) { _ = rpc.CloseSend() }, codes.Aborted},
		"a reset":       {func(rpc grpc.ClientStream) { _ = rpc.SendMsg(end(bridgepb.End_END_RESET)) }, codes.Aborted},
	} {
		rpc := generated(t, ca, to)
		c.send(rpc)
		var f bridgepb.Frame
		err := rpc.RecvMsg(&f)
		if err == nil && f.GetEnd() == bridgepb.End_END_RESET {
			_ = rpc.CloseSend() // the server waits for this answer
			err = rpc.RecvMsg(&f)
		}
		if code := status.Code(err); code != c.want && !(name == "more than a frame" && code == codes.ResourceExhausted) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A header beyond the bound is not even sent.
	config, err := ca.trust(t, "node-001").clientTLS(to.Node)
	if err != nil {
		t.Fatal(err)
	}
	cc, err := grpc.NewClient("passthrough:///"+to.Address, grpc.WithTransportCredentials(credentials.NewTLS(config)))
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	ctx := metadata.AppendToOutgoingContext(within(t, 10*time.Second), "x", strings.Repeat("x", 2*maxHeaders))
	rpc, err := cc.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, forwardMethod)
	if err == nil {
		var f bridgepb.Frame
		err = rpc.RecvMsg(&f)
	}
	if err == nil {
		t.Error("a stream with long headers was taken")
	}
}

func TestMetricsTellEachPeer(t *testing.T) {
	two := startTwo(t, nil)
	p := two.open(t)
	if _, err := p.opener.Write(make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(p.acceptor, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(two.a.pool, two.b.server)
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name += " " + l.GetValue()
			}
			got[name] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	for name, want := range map[string]float64{
		"tunnox_bridge_pool_connections node-002":            1,
		"tunnox_bridge_pool_idle_connections node-002":       0,
		"tunnox_bridge_pool_active_streams node-002":         1,
		"tunnox_bridge_pool_utilization node-002":            0.01,
		"tunnox_bridge_pool_dials_failed_total node-002":     0,
		"tunnox_bridge_pool_bytes_total sent node-002":       1000,
		"tunnox_bridge_pool_bytes_total received node-002":   0,
		"tunnox_bridge_server_connections node-001":          1,
		"tunnox_bridge_server_active_streams node-001":       1,
		"tunnox_bridge_server_bytes_total received node-001": 1000,
	} {
		if v, ok := got[name]; !ok || v != want {
			t.Errorf("%s is %v, want %v", name, v, want)
		}
	}
}
