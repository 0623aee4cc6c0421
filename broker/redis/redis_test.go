package redis

import (
	"context"
	"fmt"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/tunnox-net/tunnox/attest"
	"github.com/tunnox-net/tunnox/broker/brokertest"
	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/test/services"
)

// testKey is what the control planes of these tests write with.
var testKey = func() *attest.Key {
	k, err := attest.ParseKey(attest.NewKey())
	if err != nil {
		panic(err)
	}
	return k
}()

var signed = Options{Trust: testKey.Trust(), Forget: 20 * time.Millisecond}

func TestMain(m *testing.M) { services.Main(m) }

func options(t testing.TB, url string) *goredis.Options {
	t.Helper()
	opts, err := goredis.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	opts.DialerRetries = 1
	return opts
}

func connect(t testing.TB, url string) *goredis.Client {
	c := goredis.NewClient(options(t, url))
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func open(t testing.TB, url string) brokertest.Feed {
	c := connect(t, url)
	return brokertest.Feed{
		Publisher: NewPublisher(c, signed), Another: NewPublisher(connect(t, url), signed),
		Follower: NewFollower(options(t, url), signed, nil),
		Trim: func(p domain.Position) {
			if err := c.XTrimMinID(context.Background(), defaultStream, brokerID(p+1)).Err(); err != nil {
				t.Error(err)
			}
		},
		Flush: func() {
			if err := c.FlushDB(context.Background()).Err(); err != nil {
				t.Error(err)
			}
		},
	}
}

func TestFeed(t *testing.T) {
	brokertest.Run(t, func(t testing.TB) brokertest.Feed { return open(t, services.Redis(t)) })
}

func TestLatency(t *testing.T) {
	took := brokertest.Latency(t, open(t, services.Redis(t)), 1000)
	t.Logf("publish to delivery: p50 %s, p99 %s", took[len(took)/2], took[len(took)*99/100])
}

func brokerID(p domain.Position) string { return fmt.Sprintf("%d-0", p) }
