package redis

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/tunnox-net/tunnox/broker"
	"github.com/tunnox-net/tunnox/broker/brokertest"
	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/test/services"
)

// relay does the same as the real one, in a loop: it asks for the end of the feed and
// publishes the missing records of the log, which has the records 1 to head.
func relay(ctx context.Context, p broker.Publisher, head func() int) {
	for ctx.Err() == nil {
		end, _, ok, err := p.Last(ctx)
		if err == nil && !ok {
			end = brokertest.At(head())
			err = p.Heartbeat(ctx, end)
		}
		if last, to := int(end.Position), head(); err == nil && last < to {
			_ = p.Publish(ctx, end, brokertest.Records(last+1, min(to, last+50))) // the next round tries again
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Millisecond):
		}
	}
}

// follow reads as a forwarder does: after a gap it starts again from a snapshot, which
// is the log's head. It checks that no record in between is skipped or repeated.
func follow(t *testing.T, f broker.Follower, head func() int, until int) (gaps int) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	at := 0
	s, err := f.Follow(ctx, 0)
	for err == nil && at < until {
		var e broker.Entry
		e, err = s.Next(ctx)
		switch {
		case errors.Is(err, broker.ErrGap):
			gaps++
			_ = s.Close()
			at = head()
			s, err = f.Follow(ctx, domain.Position(at))
		case err == nil && e.Record != nil:
			if int(e.Position) != at+1 {
				t.Errorf("entry %d behind %d", e.Position, at)
			}
			at = int(e.Position)
		}
	}
	if err != nil {
		t.Errorf("follow at %d of %d: %v", at, until, err)
	}
	_ = s.Close()
	return gaps
}

type counter struct {
	mu sync.Mutex
	n  int // guarded by mu
}

func (c *counter) get() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}

func (c *counter) add(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n += n
}

// disturb runs two relays and two followers while worst disturbs them.
func disturb(t *testing.T, publish, read *goredis.Options, worst func(head *counter)) (gaps int) {
	t.Helper()
	head := &counter{n: 1} // an empty feed would be a gap, which is right
	first := goredis.NewClient(publish)
	brokertest.Publish(t, NewPublisher(first, signed), 1, 1)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var relays, followers sync.WaitGroup
	for range 2 {
		c := goredis.NewClient(publish)
		p := NewPublisher(c, signed)
		relays.Go(func() {
			defer c.Close()
			relay(ctx, p, head.get)
		})
	}
	const total = 3000
	var met counter
	for range 2 {
		followers.Go(func() {
			met.add(follow(t, NewFollower(read, signed, nil), head.get, total))
		})
	}
	grown := make(chan struct{})
	go func() {
		defer close(grown)
		for head.get() < total {
			head.add(10)
			time.Sleep(2 * time.Millisecond)
		}
	}()
	worst(head)
	<-grown
	followers.Wait()
	cancel()
	relays.Wait()
	return met.get()
}

func reach(head *counter, n int) {
	for head.get() < n {
		time.Sleep(time.Millisecond)
	}
}

func TestServerKilledInTheMiddle(t *testing.T) {
	for name, args := range map[string][]string{"all lost": nil, "kept": {"--appendonly", "yes", "--appendfsync", "always"}} {
		t.Run(name, func(t *testing.T) {
			server := services.StartRedis(t, args...)
			opts := options(t, server.URL())
			gaps := disturb(t, opts, opts, func(head *counter) {
				for _, n := range []int{500, 1500} {
					reach(head, n)
					server.Kill(t)
					time.Sleep(100 * time.Millisecond) // some time without a server
					server.Start(t)
				}
			})
			t.Logf("%d gaps", gaps)
			if args != nil && gaps > 0 {
				t.Errorf("%d gaps though the server kept everything", gaps)
			}
		})
	}
}

func TestServerFlushedAndTrimmedInTheMiddle(t *testing.T) {
	url := services.Redis(t)
	c, opts := connect(t, url), options(t, url)
	gaps := disturb(t, opts, opts, func(head *counter) {
		for n := 300; n < 2700; n += 300 {
			reach(head, n)
			if err := c.XTrimMinID(context.Background(), defaultStream, brokerID(domain.Position(n))).Err(); err != nil {
				t.Error(err)
			}
			reach(head, n+100)
			if err := c.FlushDB(context.Background()).Err(); err != nil {
				t.Error(err)
			}
		}
	})
	t.Logf("%d gaps", gaps)
}

func TestConnectionCut(t *testing.T) {
	server := services.StartRedis(t)
	p := services.StartProxy(t, server.Addr())
	through := options(t, "redis://"+p.Addr)
	gaps := disturb(t, options(t, server.URL()), through, func(head *counter) {
		for n := 300; n < 1500; n += 300 {
			reach(head, n)
			p.Cut()
			reach(head, n+100)
			p.Heal(t)
		}
	})
	if gaps > 0 {
		t.Errorf("%d gaps though the server lost nothing", gaps)
	}
}

// freezer passes bytes until it is frozen. Then present connections stay open and no
// bytes pass, as behind a firewall that forgot them. New connections work.
type freezer struct {
	listener net.Listener
	server   string
	mu       sync.Mutex
	conns    []*net.TCPConn // guarded by mu
	frozen   chan struct{}  // guarded by mu
	running  sync.WaitGroup
}

func newFreezer(t *testing.T, server string) *freezer {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &freezer{listener: l, server: server, frozen: make(chan struct{})}
	f.running.Go(f.accept)
	t.Cleanup(func() {
		_ = l.Close()
		f.freeze()
		f.mu.Lock()
		for _, c := range f.conns {
			_ = c.Close()
		}
		f.mu.Unlock()
		f.running.Wait()
	})
	return f
}

func (f *freezer) freeze() {
	f.mu.Lock()
	defer f.mu.Unlock()
	close(f.frozen)
	f.frozen = make(chan struct{})
}

func (f *freezer) accept() {
	for {
		in, err := f.listener.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", f.server)
		if err != nil {
			_ = in.Close()
			continue
		}
		f.mu.Lock()
		frozen := f.frozen
		f.conns = append(f.conns, in.(*net.TCPConn), out.(*net.TCPConn))
		f.mu.Unlock()
		for _, pair := range [][2]net.Conn{{in, out}, {out, in}} {
			f.running.Go(func() { pass(pair[0], pair[1], frozen) })
		}
	}
}

// pass copies until frozen, and then drops all bytes.
func pass(from, to net.Conn, frozen chan struct{}) {
	buf := make([]byte, 4096)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		select {
		case <-frozen:
			continue
		default:
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

func TestHalfOpenConnectionIsLeft(t *testing.T) {
	server := services.StartRedis(t)
	f := newFreezer(t, server.Addr())
	s := brokertest.Follow(t, NewFollower(options(t, "redis://"+f.listener.Addr().String()), signed, nil), 0)
	p := NewPublisher(connect(t, server.URL()), signed)
	brokertest.Publish(t, p, 1, 5)
	brokertest.Want(t, s, 1, 5)
	f.freeze()
	begin := time.Now()
	brokertest.Publish(t, p, 6, 9)
	brokertest.Want(t, s, 6, 9)
	if d := time.Since(begin); d > readBlock+readGrace+retryMost+time.Second {
		t.Errorf("followed again after %s", d)
	}
}

func TestPoisonEntries(t *testing.T) {
	ctx := context.Background()
	url := services.Redis(t)
	f, c := open(t, url), connect(t, url)
	put := func(id string, values ...any) {
		t.Helper()
		if err := c.XAdd(ctx, &goredis.XAddArgs{Stream: defaultStream, ID: id, Values: values}).Err(); err != nil {
			t.Fatal(err)
		}
	}
	s := brokertest.Follow(t, f.Follower, 0)
	brokertest.Publish(t, f.Publisher, 1, 3)
	put("3-7", "garbage", "1")
	put("3-8", "_watermill_message_uuid", "x", "metadata", "not msgpack", "payload", "")
	brokertest.Publish(t, f.Publisher, 4, 6)
	brokertest.Want(t, s, 1, 6) // between records: skipped
	put("7-0", "garbage", "1")
	brokertest.Publish(t, f.Publisher, 7, 9)
	brokertest.WantGap(t, s) // in the place of record 7: the record must come from elsewhere
	brokertest.Want(t, brokertest.Follow(t, f.Follower, 7), 8, 9)

	put("999999999-0", "garbage", "1")
	if last, _, ok, err := f.Publisher.Last(ctx); last.Position != 999999999 || !ok || err != nil {
		t.Errorf("last: %v, %v, %v; a relay must see that this is not its log", last, ok, err)
	}
	if err := f.Publisher.Reset(ctx, "another"); err != nil {
		t.Fatal(err)
	}
	brokertest.Publish(t, f.Publisher, 10, 12)
	brokertest.Want(t, brokertest.Follow(t, f.Follower, 9), 10, 12)
}

func TestIdleFeedDoesNotGrow(t *testing.T) {
	ctx := context.Background()
	url := services.Redis(t)
	f, c := open(t, url), connect(t, url)
	brokertest.Publish(t, f.Publisher, 1, 5)
	for range 100 {
		if err := f.Publisher.Heartbeat(ctx, brokertest.At(5)); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := c.XLen(ctx, defaultStream).Result(); n != 6 || err != nil {
		t.Errorf("%d entries, %v; want 5 records and one control entry", n, err)
	}
}

func TestFeedKeepsABoundedNumberOfPositions(t *testing.T) {
	ctx := context.Background()
	c := connect(t, services.Redis(t))
	p := NewPublisher(c, Options{Keep: 1000, Trust: testKey.Trust()})
	brokertest.Publish(t, p, 1, 20_000)
	n, err := c.XLen(ctx, defaultStream).Result()
	if err != nil || n < 1000 || n > 1500 {
		t.Errorf("%d entries, %v; want about 1000", n, err)
	}
}

// A publisher that was frozen while the log was rolled back has records that may be in
// no log any more.
func TestAPublisherOfAnEpochBeforePublishesNothing(t *testing.T) {
	ctx := t.Context()
	f := open(t, services.Redis(t))
	if err := f.Publisher.Reset(ctx, "first"); err != nil {
		t.Fatal(err)
	}
	brokertest.Publish(t, f.Publisher, 1, 3)
	if err := f.Another.Reset(ctx, "second"); err != nil {
		t.Fatal(err)
	}
	brokertest.Publish(t, f.Another, 1, 2)
	if err := f.Publisher.Publish(ctx, brokertest.At(3), brokertest.Records(4, 5)); !errors.Is(err, errEpoch) {
		t.Errorf("publish in an epoch before: %v", err)
	}
	if end, epoch, _, err := f.Publisher.Last(ctx); end != brokertest.At(2) || epoch != "second" || err != nil {
		t.Errorf("the feed is at %v of %q, %v", end, epoch, err)
	}
	brokertest.Publish(t, f.Publisher, 3, 4) // it knows the new epoch now
}
