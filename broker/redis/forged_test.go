package redis

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill-redisstream/pkg/redisstream"
	"github.com/ThreeDotsLabs/watermill/message"
	goredis "github.com/redis/go-redis/v9"

	"github.com/tunnox-net/tunnox/attest"
	"github.com/tunnox-net/tunnox/broker"
	"github.com/tunnox-net/tunnox/broker/brokertest"
	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/test/services"
)

// next gives what a follower is told next.
func next(t *testing.T, s broker.Subscription) (broker.Entry, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	return s.Next(ctx)
}

// write puts an entry on the feed as somebody does who has Redis and no key.
func write(t *testing.T, c *goredis.Client, id string, m *message.Message) {
	t.Helper()
	values, err := redisstream.DefaultMarshallerUnmarshaller{}.Marshal(defaultStream, m)
	if err == nil {
		err = c.XAdd(t.Context(), &goredis.XAddArgs{Stream: defaultStream, ID: id, Values: values}).Err()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// forge makes the entry of a record that is in no log.
func forge(t *testing.T, at domain.Position, prev domain.Place) *message.Message {
	t.Helper()
	event, schema, data, err := domain.Encode(domain.MappingEnabled{})
	if err != nil {
		t.Fatal(err)
	}
	m, err := entry(prev, &domain.Record{ID: domain.EventID{1, 2, 3}, Position: at, Stream: domain.MappingStream(1001), Version: 1,
		Name: event, Schema: schema, Data: data, Recorded: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// An entry that no control plane wrote reaches nobody: in the place of a record it is
// a gap, and the follower begins anew.
func TestAForgedEntryIsNotFollowed(t *testing.T) {
	another, err := attest.ParseKey(attest.NewKey())
	if err != nil {
		t.Fatal(err)
	}
	url := services.Redis(t)
	for name, change := range map[string]func(c *goredis.Client, m *message.Message){
		"without a proof": func(*goredis.Client, *message.Message) {},
		"with the proof of another key": func(_ *goredis.Client, m *message.Message) {
			prove(another, m)
		},
		"with the proof of another entry": func(c *goredis.Client, m *message.Message) {
			all, err := c.XRange(t.Context(), defaultStream, "5-0", "5-0").Result()
			if err != nil || len(all) != 1 {
				t.Fatal(all, err)
			}
			m.Metadata.Set(metaProof, toMessage(all[0], true).Metadata.Get(metaProof))
		},
		"a record of the log at another position": func(c *goredis.Client, m *message.Message) {
			all, err := c.XRange(t.Context(), defaultStream, "5-0", "5-0").Result()
			if err != nil || len(all) != 1 {
				t.Fatal(all, err)
			}
			was := toMessage(all[0], true)
			m.UUID, m.Payload = was.UUID, was.Payload
			for _, meta := range []string{metaRecord, metaProof} {
				m.Metadata.Set(meta, was.Metadata.Get(meta))
			}
			var r domain.Record
			if err := json.Unmarshal([]byte(m.Metadata.Get(metaRecord)), &r); err != nil {
				t.Fatal(err)
			}
			r.Position = 11
			text, err := json.Marshal(r)
			if err != nil {
				t.Fatal(err)
			}
			m.Metadata.Set(metaRecord, string(text))
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := connect(t, url)
			if err := c.FlushDB(t.Context()).Err(); err != nil {
				t.Fatal(err)
			}
			f := open(t, url)
			brokertest.Publish(t, f.Publisher, 1, 10)
			s := brokertest.Follow(t, f.Follower, 0)
			brokertest.Want(t, s, 1, 10)
			m := forge(t, 11, domain.Place{Position: 10})
			change(c, m)
			write(t, c, "11-0", m)
			if e, err := next(t, s); !errors.Is(err, broker.ErrGap) {
				t.Errorf("the follower was told %+v, %v", e.Record, err)
			}
		})
	}
}

// What is on the feed cannot be changed: also an entry that follows in order, with
// other data, is a gap.
func TestAChangedEntryIsNotFollowed(t *testing.T) {
	url := services.Redis(t)
	c := connect(t, url)
	f := open(t, url)
	brokertest.Publish(t, f.Publisher, 1, 10)
	all, err := c.XRange(t.Context(), defaultStream, "-", "+").Result()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Del(t.Context(), defaultStream).Err(); err != nil {
		t.Fatal(err)
	}
	for _, was := range all {
		if was.ID == "7-0" {
			payload, _ := was.Values["payload"].(string)
			was.Values["payload"] = payload + " "
		}
		if err := c.XAdd(t.Context(), &goredis.XAddArgs{Stream: defaultStream, ID: was.ID, Values: was.Values}).Err(); err != nil {
			t.Fatal(err)
		}
	}
	s := brokertest.Follow(t, f.Follower, 0)
	brokertest.Want(t, s, 1, 6)
	if e, err := next(t, s); !errors.Is(err, broker.ErrGap) {
		t.Errorf("the follower was told %+v, %v", e, err)
	}
}

// A forged word that the log was taken back makes nobody forget what they know, and a
// forged control entry tells nobody where the feed is.
func TestAForgedEpochIsPassedOver(t *testing.T) {
	url := services.Redis(t)
	c := connect(t, url)
	f := open(t, url)
	if err := f.Publisher.Name(t.Context(), "first"); err != nil {
		t.Fatal(err)
	}
	brokertest.Publish(t, f.Publisher, 1, 10)
	s := brokertest.Follow(t, f.Follower, 0)
	brokertest.Want(t, s, 1, 10)
	if err := c.XAdd(t.Context(), &goredis.XAddArgs{Stream: epochs(defaultStream), Values: map[string]any{fieldEpoch: "forged"}}).Err(); err != nil {
		t.Fatal(err)
	}
	m := message.NewMessage("control", nil)
	m.Metadata = message.Metadata{metaPosition: "10", metaPrev: "10", metaControl: "1"}
	write(t, c, "10-1", m)
	// A relay looks when it may not publish, and names the feed again.
	if _, epoch, _, err := f.Publisher.Last(t.Context()); err != nil || epoch != "" {
		t.Errorf("the forged epoch is taken for %q, %v", epoch, err)
	}
	if err := f.Publisher.Name(t.Context(), "first"); err != nil {
		t.Fatal(err)
	}
	brokertest.Publish(t, f.Publisher, 11, 12)
	brokertest.Want(t, s, 11, 12)
	if _, epoch, _, err := f.Publisher.Last(t.Context()); err != nil || epoch != "first" {
		t.Errorf("the epoch is %q, %v", epoch, err)
	}
}
