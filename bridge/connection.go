package bridge

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/experimental"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/tunnox-net/tunnox/transport"
)

const (
	// streamWindow and connWindow are gRPC's windows. A stream's window is never full,
	// because the receiver reads at once all that our own window allows. It is twice as
	// large as ours, because small frames cost more than their bytes. A connection's
	// window bounds the bytes on the line: 16 MiB are 1.6 GB/s at 10 ms.
	streamWindow = 2 * window
	connWindow   = 16 << 20
	// writeBuffer and readBuffer are the buffer sizes of a connection. Four full frames
	// and the bytes before them fit into one system call; otherwise those bytes would
	// need a call of their own.
	writeBuffer, readBuffer = 68 << 10, 64 << 10
	// maxHeaders bounds the headers of an RPC. Ours have some 200 bytes.
	maxHeaders = 8 << 10
	// A ping is sent after a silence of probeAfter, and its answer must come within
	// probeFor. So a dead peer is noticed within 15 s.
	probeAfter, probeFor = 10 * time.Second, 5 * time.Second
)

// forwardMethod is the only RPC in bridge.proto.
const (
	forwardService = "tunnox.bridge.v1.Bridge"
	forwardName    = "Forward"
	forwardMethod  = "/" + forwardService + "/" + forwardName
)

// connection is one gRPC connection to a peer. It is dialled once. When it is lost the
// pool makes another one.
type connection struct {
	cc   *grpc.ClientConn
	link *link

	// guarded by Pool.mu
	inUse   int
	retired bool        // accepts no new streams
	idle    *time.Timer // runs while inUse is 0
	expiry  *time.Timer // retires the connection before a certificate expires
	stop    context.CancelFunc
}

// dial makes a connection to the node at address. The error says why there is none.
func dial(ctx context.Context, config PoolConfig, node, address string) (*connection, error) {
	client, err := config.Trust.clientTLS(node)
	if err == nil && config.Refuse != nil {
		err = config.Refuse(node)
	}
	if err != nil {
		return nil, err
	}
	c := new(connection)
	var dialled atomic.Bool
	failure := make(chan error, 2) // errors that gRPC would only write to a log
	fail := func(err error) error {
		select {
		case failure <- err:
		default:
		}
		return err
	}
	cc, err := grpc.NewClient("passthrough:///"+address, append([]grpc.DialOption{
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			if dialled.Swap(true) {
				return nil, errors.New("bridge: this connection was dialled before")
			}
			raw, err := config.Dial(ctx, "tcp", address)
			if err != nil {
				return nil, fail(err)
			}
			return raw, nil
		}),
		grpc.WithTransportCredentials(handshake{client: func(ctx context.Context, raw net.Conn) (*link, error) {
			below := transport.NewRecords(raw)
			conn := tls.Client(below, client)
			if err := conn.HandshakeContext(ctx); err != nil {
				return nil, fail(fmt.Errorf("tls handshake: %w", err))
			}
			l, err := newLink(conn, below)
			if err != nil {
				return nil, fail(err)
			}
			c.link = l
			return l, nil
		}}),
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: config.DialTimeout}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: probeAfter, Timeout: probeFor, PermitWithoutStream: true}),
		grpc.WithStaticStreamWindowSize(streamWindow), grpc.WithStaticConnWindowSize(connWindow),
		grpc.WithWriteBufferSize(writeBuffer), grpc.WithReadBufferSize(readBuffer),
		grpc.WithMaxHeaderListSize(maxHeaders), experimental.WithBufferPool(received{}),
		grpc.WithDefaultCallOptions(
			grpc.ForceCodecV2(newCodec()), grpc.MaxCallRecvMsgSize(maxFrame),
		),
		grpc.WithDisableRetry(), grpc.WithDisableServiceConfig(), grpc.WithIdleTimeout(0),
		grpc.WithUserAgent("tunnox-bridge"),
	}, config.options...)...)
	if err != nil {
		return nil, err
	}
	cc.Connect()
	for state := cc.GetState(); state != connectivity.Ready; state = cc.GetState() {
		if state == connectivity.TransientFailure || !cc.WaitForStateChange(ctx, state) {
			_ = cc.Close()
			select {
			case err = <-failure:
			default:
				// The handshake seemed to succeed. In TLS 1.3 the client has finished
				// before the server refuses the client's certificate.
				err = errors.New("the peer closed the connection")
			}
			if ctx.Err() != nil {
				err = fmt.Errorf("%w: %w", ctx.Err(), err)
			}
			return nil, err
		}
	}
	c.cc = cc
	return c, nil
}

// open begins a stream. ctx limits the opening, not the stream. If open gives no error,
// ended is called once, when the stream has ended.
func (c *connection) open(ctx context.Context, count *traffic, ended func()) (*stream, error) {
	life, cancel := context.WithCancel(context.Background())
	stop := context.AfterFunc(ctx, cancel)
	rpc, err := c.cc.NewStream(life, &grpc.StreamDesc{StreamName: forwardName, ServerStreams: true, ClientStreams: true}, forwardMethod)
	if !stop() && err == nil {
		err = ctx.Err() // life has ended with ctx
	}
	if err != nil {
		cancel()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("%w: %w", transport.ErrSessionClosed, err)
	}
	// Context commits the RPC to this connection. Without that gRPC would keep the first
	// frame to send it again, and lose its buffers when the peer's headers arrive while it
	// is being sent: bufferForRetryLocked of grpc-go 1.85 then does not free them. The
	// stream would wait for those buffers for ever. The pool itself opens a stream again
	// on which nothing was sent.
	_ = rpc.Context()
	s := newStream(rpc, c.link.LocalAddr(), c.link.RemoteAddr(), count)
	s.cancel, s.hangUp, s.explain = cancel, rpc.CloseSend, c.explain
	go func() {
		s.receive()
		cancel()
		ended()
	}()
	return s, nil
}

// explain gives the error of package transport for the way the opener's RPC ended.
func (c *connection) explain(err error) error {
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: the peer's handler returned", transport.ErrReset)
	}
	switch status.Code(err) {
	case codes.Unavailable, codes.Unauthenticated, codes.Unimplemented:
		return fmt.Errorf("%w: %w", transport.ErrSessionClosed, err)
	}
	if c.link.closed.Load() {
		return fmt.Errorf("%w: %w", transport.ErrSessionClosed, err)
	}
	return fmt.Errorf("%w: %w", transport.ErrReset, err)
}

// health asks the peer whether the connection can be used for new streams. A peer that
// does not answer but sends other bytes is busy, and healthy.
func (c *connection) health(ctx context.Context, timeout time.Duration) (serving bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	before := c.link.received.Load()
	answer, err := grpc_health_v1.NewHealthClient(c.cc).Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: forwardService})
	switch {
	case err == nil:
		return answer.GetStatus() == grpc_health_v1.HealthCheckResponse_SERVING, nil
	case status.Code(err) == codes.DeadlineExceeded && c.link.received.Load() != before:
		return true, nil
	}
	return false, err
}
