package redis

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill-redisstream/pkg/redisstream"
	"github.com/ThreeDotsLabs/watermill/message"
	goredis "github.com/redis/go-redis/v9"

	"github.com/tunnox-net/tunnox/broker/brokertest"
	"github.com/tunnox-net/tunnox/test/services"
)

// stockFollower follows with watermill-redisstream's own Subscriber.
func stockFollower(opts *goredis.Options) *Follower {
	f := NewFollower(opts, signed, nil)
	f.open = func(after string) (message.Subscriber, error) {
		return redisstream.NewSubscriber(redisstream.SubscriberConfig{Client: goredis.NewClient(opts),
			FanOutOldestId: after, DisableIndefiniteInitialBlock: true, BlockTime: 100 * time.Millisecond}, watermill.NopLogger{})
	}
	return f
}

// The feed is a watermill stream: watermill's own Subscriber can read it.
func TestStockSubscriberReadsTheFeed(t *testing.T) {
	url := services.Redis(t)
	f := open(t, url)
	brokertest.Publish(t, f.Publisher, 1, 50)
	s, err := stockFollower(options(t, url)).Follow(context.Background(), 20)
	if err != nil {
		t.Fatal(err)
	}
	brokertest.Want(t, s, 21, 50)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	time.Sleep(150 * time.Millisecond) // its last blocked read continues after Close for up to BlockTime
}

// BenchmarkCatchUp shows why the Subscriber is our own: the stock one needs a round
// trip for each entry.
func BenchmarkCatchUp(b *testing.B) {
	const entries = 5000
	for _, delay := range []int{0, 1} {
		server := services.StartRedis(b)
		p := NewPublisher(connect(b, server.URL()), signed)
		brokertest.Publish(b, p, 1, entries)
		through := options(b, server.URL())
		if delay > 0 {
			front := services.StartProxy(b, server.Addr())
			front.Delay(delay)
			through = options(b, "redis://"+front.Addr)
		}
		for name, f := range map[string]*Follower{"own": NewFollower(through, signed, nil), "stock": stockFollower(through)} {
			b.Run(fmt.Sprintf("%s/%dms", name, delay), func(b *testing.B) {
				for b.Loop() {
					s, err := f.Follow(context.Background(), 0)
					if err != nil {
						b.Fatal(err)
					}
					brokertest.Want(b, s, 1, entries)
					if err := s.Close(); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(entries*float64(b.N)/b.Elapsed().Seconds(), "entries/s")
			})
		}
	}
	time.Sleep(time.Second)
}
