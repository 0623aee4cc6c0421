package bridge

import (
	"context"
	"io"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/stats"
)

// lateSender keeps the first SendMsg of each RPC from returning until the peer's first
// frame has been received, or patience is over.
type lateSender struct {
	patience time.Duration
	mu       sync.Mutex
}

type rpcKey struct{}

func (*lateSender) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context {
	return context.WithValue(ctx, rpcKey{}, make(chan struct{}))
}

func (l *lateSender) HandleRPC(ctx context.Context, event stats.RPCStats) {
	answered := ctx.Value(rpcKey{}).(chan struct{})
	switch event.(type) {
	case *stats.OutPayload:
		select {
		case <-answered:
			time.Sleep(l.patience / 100) // until gRPC has looked at the frame
		case <-time.After(l.patience):
		}
	case *stats.InPayload:
		l.mu.Lock()
		defer l.mu.Unlock()
		select {
		case <-answered:
		default:
			close(answered)
		}
	}
}

func (*lateSender) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (*lateSender) HandleConn(context.Context, stats.ConnStats)                       {}

// The peer may answer the first frame while gRPC is still sending it. Its buffers come
// back all the same: without them the stream would stand still.
func TestBuffersComeBackWhenTheAnswerIsEarly(t *testing.T) {
	two := startTwo(t, func(pool *PoolConfig, _ *ServerConfig) {
		pool.options = []grpc.DialOption{grpc.WithStatsHandler(&lateSender{patience: time.Second})}
	})
	p := two.open(t)
	const size = 1 << 20
	go func() {
		_, _ = p.opener.Write(make([]byte, size))
		_ = p.opener.CloseWrite()
	}()
	_ = p.acceptor.SetReadDeadline(time.Now().Add(10 * time.Second))
	if n, err := io.Copy(io.Discard, p.acceptor); n != size || err != nil {
		t.Fatalf("%d of %d bytes arrived, %v", n, size, err)
	}
	s := p.opener.(*stream)
	eventually(t, "nothing is unsent", func() bool { return s.unsent.Load() == 0 })
}
