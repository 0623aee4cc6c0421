package memory_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/broker"
	"github.com/tunnox-net/tunnox/broker/brokertest"
	"github.com/tunnox-net/tunnox/broker/memory"
	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/test/services"
)

func TestMain(m *testing.M) { services.Main(m) }

func open(t testing.TB) brokertest.Feed {
	f := memory.New(memory.DefaultCapacity, nil)
	f.Forget = 20 * time.Millisecond
	t.Cleanup(func() { _ = f.Close() })
	return brokertest.Feed{Publisher: f, Another: f, Follower: f, Trim: f.Trim,
		Flush: f.Flush}
}

func TestFeed(t *testing.T) { brokertest.Run(t, open) }

func TestOverrunFollowerMeetsAGap(t *testing.T) {
	f := memory.New(64, nil)
	defer f.Close()
	s := brokertest.Follow(t, f, 0)
	brokertest.Publish(t, f, 1, 64)
	brokertest.Want(t, s, 1, 64)
	brokertest.Publish(t, f, 65, 129)
	brokertest.WantGap(t, s)
	brokertest.Want(t, brokertest.Follow(t, f, 65), 66, 129)
}

func TestClosedFeed(t *testing.T) {
	f := memory.New(8, nil)
	s := brokertest.Follow(t, f, 0)
	done := make(chan error, 1)
	go func() {
		_, err := s.Next(context.Background())
		done <- err
	}()
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, broker.ErrClosed) {
		t.Errorf("next: %v", err)
	}
	if err := f.Publish(context.Background(), domain.Place{}, brokertest.Records(1, 1)); !errors.Is(err, broker.ErrClosed) {
		t.Errorf("publish: %v", err)
	}
	if err := f.Heartbeat(context.Background(), domain.Place{}); !errors.Is(err, broker.ErrClosed) {
		t.Errorf("heartbeat: %v", err)
	}
	if _, err := f.Follow(context.Background(), 0); !errors.Is(err, broker.ErrClosed) {
		t.Errorf("follow: %v", err)
	}
	if _, _, _, err := f.Last(context.Background()); !errors.Is(err, broker.ErrClosed) {
		t.Errorf("last: %v", err)
	}
}

func TestLatency(t *testing.T) {
	took := brokertest.Latency(t, open(t), 2000)
	t.Logf("publish to delivery: p50 %s, p99 %s", took[len(took)/2], took[len(took)*99/100])
}
