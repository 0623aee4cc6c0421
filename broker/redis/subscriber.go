package redis

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill-redisstream/pkg/redisstream"
	"github.com/ThreeDotsLabs/watermill/message"
	goredis "github.com/redis/go-redis/v9"

	"github.com/tunnox-net/tunnox/wait"
)

const (
	// readCount is how many entries one read gives.
	readCount = 256
	// readBlock is how long an idle read waits at the server.
	readBlock = time.Second
	// readGrace is how much longer than readBlock an answer may need. A server that is
	// silent for longer counts as gone, also when the connection seems alive.
	readGrace = 2 * time.Second
	// retryFirst and retryMost bound the pause after a failed read; it doubles.
	retryFirst = 20 * time.Millisecond
	retryMost  = time.Second
)

// Metadata that the subscriber adds; it is not on the stream.
const (
	metaID     = "entry_id"
	metaPoison = "poison" // why the entry is not a message
	metaEpoch  = "epoch"  // the message only says that this is the feed's epoch now
)

// subscriber reads a stream from an entry on, as a watermill [message.Subscriber] for
// one topic and one place. It differs from the stock one: it reads many entries at
// once, never more than readCount; it gives each entry's id; it passes on entries that
// it cannot unmarshal instead of ending; and it ends at once when its context ends.
type subscriber struct {
	connect *goredis.Options
	after   string // entry id after which to start
	logger  *slog.Logger

	closing context.Context // ended by Close
	close   context.CancelFunc
	reading sync.WaitGroup
}

func newSubscriber(connect *goredis.Options, after string, logger *slog.Logger) *subscriber {
	own := *connect
	// The client has a connection of its own, because a blocked read occupies it. It
	// has no retries inside go-redis, which would hide a failure for seconds.
	own.PoolSize, own.MaxRetries, own.DialerRetries, own.ContextTimeoutEnabled = 1, -1, 1, true
	own.DialTimeout = readGrace
	s := &subscriber{connect: &own, after: after, logger: logger}
	s.closing, s.close = context.WithCancel(context.Background())
	return s
}

// Subscribe implements message.Subscriber. Messages come one by one; each comes after
// the message before was acknowledged.
func (s *subscriber) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	ctx, cancel := context.WithCancel(ctx)
	stopClosing := context.AfterFunc(s.closing, cancel)
	out := make(chan *message.Message)
	s.reading.Go(func() {
		defer close(out)
		defer cancel()
		defer stopClosing()
		s.read(ctx, topic, out)
	})
	return out, nil
}

// Close implements message.Subscriber.
func (s *subscriber) Close() error {
	s.close()
	s.reading.Wait()
	return nil
}

func (s *subscriber) read(ctx context.Context, topic string, out chan<- *message.Message) {
	client := goredis.NewClient(s.connect)
	// go-redis does not end a blocked read when its context ends; closing the client
	// does.
	defer context.AfterFunc(ctx, func() { _ = client.Close() })()
	defer client.Close()
	after, epoch, pause := s.after, "0", wait.Backoff{First: retryFirst, Most: retryMost}
	for ctx.Err() == nil {
		bounded, cancel := context.WithTimeout(ctx, readBlock+readGrace)
		streams, err := client.XRead(bounded, &goredis.XReadArgs{
			Streams: []string{epochs(topic), topic, epoch, after}, Count: readCount, Block: readBlock}).Result()
		cancel()
		if errors.Is(err, goredis.Nil) {
			pause.Reset()
			continue
		}
		if err != nil {
			if !s.pause(ctx, &pause, err) {
				return
			}
			continue
		}
		pause.Reset()
		// Epochs come first: entries that came with a new epoch must not be applied
		// before it.
		for _, stream := range streams {
			for _, entry := range stream.Messages {
				if !deliver(ctx, out, toMessage(entry, stream.Stream == topic)) {
					return
				}
				if stream.Stream == topic {
					after = entry.ID
				} else {
					epoch = entry.ID
				}
			}
		}
	}
}

// pause waits after a failed read, longer each time. The pause is drawn, so that
// followers with the same failure do not retry together.
func (s *subscriber) pause(ctx context.Context, pause *wait.Backoff, err error) bool {
	if ctx.Err() != nil {
		return false
	}
	level := slog.LevelWarn
	in := pause.Next()
	if _, ok := errors.AsType[net.Error](err); ok && in < retryMost/2 {
		level = slog.LevelDebug // the first tries; a restart of Redis needs no warning
	}
	s.logger.Log(ctx, level, "feed read failed", "error", err, "retry_in", in)
	return wait.For(ctx, in)
}

// toMessage reads an entry of the feed, or an entry that names the feed's epoch.
func toMessage(entry goredis.XMessage, feed bool) *message.Message {
	if !feed {
		m := message.NewMessage(entry.ID, nil)
		epoch, _ := entry.Values[fieldEpoch].(string)
		proof, _ := entry.Values[fieldProof].(string)
		m.Metadata.Set(metaEpoch, epoch)
		m.Metadata.Set(metaProof, proof)
		return m
	}
	m, err := redisstream.DefaultMarshallerUnmarshaller{}.Unmarshal(entry.Values)
	if err != nil {
		m = message.NewMessage(entry.ID, nil)
		m.Metadata.Set(metaPoison, err.Error())
	}
	if m.Metadata == nil {
		m.Metadata = message.Metadata{}
	}
	m.Metadata.Set(metaID, entry.ID)
	return m
}

// deliver sends a message until it is acknowledged.
func deliver(ctx context.Context, out chan<- *message.Message, m *message.Message) bool {
	for {
		m.SetContext(ctx)
		select {
		case out <- m:
		case <-ctx.Done():
			return false
		}
		select {
		case <-m.Acked():
			return true
		case <-m.Nacked():
			m = m.Copy()
		case <-ctx.Done():
			return false
		}
	}
}
