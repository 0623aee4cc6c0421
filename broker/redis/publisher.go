// Package redis is the configuration feed of a cluster: one Redis stream, in
// watermill's messages, read by every forwarder at its own pace.
//
// An entry's id is its position (POSITION-0). So Redis itself refuses to publish a
// position twice, several publishers need no leader, and a follower needs only its
// checkpoint to continue. Each entry names the position before it, because Redis does
// not tell a reader that its place was trimmed or flushed. A control entry has the id
// POSITION-MILLISECONDS: these ids rise also over a flush.
//
// Others may be able to write to that Redis. So every entry has a proof that a control
// plane wrote it, for this position, after this entry (proof.go).
//
// The marshaller is watermill-redisstream's, so its tools can read this stream. Its
// Subscriber is replaced by one of our own with the same interface: the stock one reads
// one entry in a round trip, and the whole stream in the first.
package redis

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill-redisstream/pkg/redisstream"
	"github.com/ThreeDotsLabs/watermill/message"
	goredis "github.com/redis/go-redis/v9"

	"github.com/tunnox-net/tunnox/attest"
	"github.com/tunnox-net/tunnox/broker"
	"github.com/tunnox-net/tunnox/domain"
)

const (
	// defaultStream is the key of the feed.
	defaultStream = "tunnox:feed"
	// defaultKeep is how many positions the feed keeps. That is about 40 MB of Redis.
	// At two thousand records a second, a follower has half a minute to return without
	// a snapshot.
	defaultKeep = 65_536
	// publishChunk bounds how long one script blocks Redis.
	publishChunk = 256
)

// The metadata of a message.
const (
	metaPosition = "position"
	metaPrev     = "prev"
	metaPrevID   = "prev_id" // the id of the record at prev, when it is known
	metaRecord   = "record"  // the record without its data, which is the payload
	metaControl  = "control" // set on control entries
)

// Options configure publisher and follower. The zero value works.
type Options struct {
	Stream string // key of the stream
	Keep   int64  // positions kept before the newest, 0 = 65,536
	// Forget is how long after the erasure of a user the entries before it are removed;
	// 0 = [broker.ForgetAfter].
	Forget  time.Duration
	Metrics *broker.Metrics
	// Trust has the key that a publisher writes with, and whom a follower believes.
	Trust attest.Trust
}

// epochs gives the key of the stream with the feed's epochs. The last entry is the
// present epoch. The stream is separate from the feed, because a follower beyond the
// end of a rolled back feed would see nothing of that feed. The braces keep both on one
// node of a Redis Cluster.
func epochs(stream string) string { return "{" + stream + "}:epochs" }

// erasures gives the key of the sorted set with the positions of erasures, by when the
// entries before them are to be removed, in milliseconds.
func erasures(stream string) string { return "{" + stream + "}:erasures" }

// fieldEpoch is the field of that stream that holds the epoch.
const fieldEpoch = "epoch"

func (o Options) stream() string {
	if o.Stream == "" {
		return defaultStream
	}
	return o.Stream
}

// Publisher is a [broker.Publisher].
type Publisher struct {
	client     goredis.UniversalClient
	stream     string
	keep       int64
	forget     int64 // milliseconds
	marshaller redisstream.DefaultMarshallerUnmarshaller
	metrics    *broker.Metrics
	trust      attest.Trust

	mu      sync.Mutex
	control string // guarded by mu; id of our newest control entry
	epoch   string // guarded by mu; the epoch that this publisher knows, "" = none
	forged  bool   // guarded by mu; somebody else has named the feed's epoch
}

// NewPublisher publishes through the client, which it does not close.
func NewPublisher(client goredis.UniversalClient, o Options) *Publisher {
	if o.Keep == 0 {
		o.Keep = defaultKeep
	}
	if o.Forget == 0 {
		o.Forget = broker.ForgetAfter
	}
	return &Publisher{client: client, stream: o.stream(), keep: o.Keep, forget: o.Forget.Milliseconds(), metrics: o.Metrics, trust: o.Trust}
}

// newest gives the highest id that the stream ever had. Redis keeps it when the entry
// is trimmed. It is nil when there is no stream.
const newest = `
local function newest()
  local info = redis.pcall('XINFO', 'STREAM', KEYS[1])
  if info.err then
    if string.find(info.err, 'no such key', 1, true) then return nil end
    error(info.err)
  end
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then return info[i + 1] end
  end
end
local function position(id) return tonumber(string.match(id, '^%d+')) end
`

// lastScript: KEYS feed, epochs. It gives the highest id (empty when there is none), the
// epoch, the metadata and uuid of the newest entry that is still there, and the epoch's
// proof.
var lastScript = goredis.NewScript(newest + `
local answer = {newest() or '', '', '', '', ''}
local epoch = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
if epoch then answer[2], answer[5] = epoch[2][2], epoch[2][4] or '' end
local entry = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
if entry and entry[1] == answer[1] then
  for i = 1, #entry[2], 2 do
    if entry[2][i] == 'metadata' then answer[3] = entry[2][i + 1] end
    if entry[2][i] == '_watermill_message_uuid' then answer[4] = entry[2][i + 1] end
  end
end
return answer
`)

// nameScript: KEYS feed, epochs. ARGV the epoch, 1 to empty the feed or 2 to take the
// place of an epoch that somebody else named, the proof.
var nameScript = goredis.NewScript(`
if ARGV[2] == '1' then
  redis.call('UNLINK', KEYS[1])
elseif ARGV[2] == '0' and redis.call('EXISTS', KEYS[2]) == 1 then
  return 0
end
redis.call('XADD', KEYS[2], 'MAXLEN', 1, '*', '` + fieldEpoch + `', ARGV[1], '` + fieldProof + `', ARGV[3])
return 1
`)

// forget removes the entries before the last erasure whose time has come. The key of
// the erasures is the last of KEYS.
const forget = `
local function milliseconds()
  local now = redis.call('TIME')
  return now[1] * 1000 + math.floor(now[2] / 1000)
end
local function forget()
  local due = redis.call('ZRANGEBYSCORE', KEYS[#KEYS], '-inf', milliseconds())
  local last = -1
  for _, p in ipairs(due) do last = math.max(last, tonumber(p)) end
  if last < 0 then return end
  redis.call('XTRIM', KEYS[1], 'MINID', '=', string.format('%.0f', last))
  redis.call('ZREM', KEYS[#KEYS], unpack(due))
end
`

// publishScript: KEYS feed, epochs, erasures. ARGV positions to keep, the epoch that the
// publisher knows, the positions of erasures with spaces between, after how many
// milliseconds the entries before those are removed, then position, uuid, metadata and payload of each entry. Entries at
// or before the newest one are left out. It gives 0 when the feed has another epoch:
// this publisher was frozen while the log was rolled back, and its records may be in no
// log any more.
var publishScript = goredis.NewScript(newest + forget + `
local epoch = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
if epoch and ARGV[2] ~= '' and epoch[2][2] ~= ARGV[2] then return 0 end
local id = newest()
local last = id and position(id) or -1
for i = 5, #ARGV, 4 do
  local p = tonumber(ARGV[i])
  if p > last then
    redis.call('XADD', KEYS[1], ARGV[i] .. '-0', '_watermill_message_uuid', ARGV[i + 1], 'metadata', ARGV[i + 2], 'payload', ARGV[i + 3])
    last = p
  end
end
local oldest = last - ARGV[1]
if oldest > 0 then redis.call('XTRIM', KEYS[1], 'MINID', '~', string.format('%.0f', oldest)) end
for p in string.gmatch(ARGV[3], '%d+') do redis.call('ZADD', KEYS[3], milliseconds() + ARGV[4], p) end
forget()
return 1
`)

// heartbeatScript: KEYS feed, erasures. ARGV position, uuid, metadata and the id of the control entry that
// this one replaces, so that an idle feed does not fill with control entries. It gives
// the new id, which is empty when the feed is beyond the position.
var heartbeatScript = goredis.NewScript(newest + forget + `
forget()
local id = newest()
if id and position(id) > tonumber(ARGV[1]) then return '' end
local ms = milliseconds()
if id and position(id) == tonumber(ARGV[1]) then
  ms = math.max(ms, tonumber(string.match(id, '%d+$')) + 1)
end
local own = ARGV[1] .. '-' .. string.format('%.0f', ms)
redis.call('XADD', KEYS[1], own, '_watermill_message_uuid', ARGV[2], 'metadata', ARGV[3], 'payload', '')
if ARGV[4] ~= '' then redis.call('XDEL', KEYS[1], ARGV[4]) end
return own
`)

// Last implements broker.Publisher.
func (p *Publisher) Last(ctx context.Context) (end domain.Place, epoch string, ok bool, err error) {
	found, err := lastScript.Run(ctx, p.client, []string{p.stream, epochs(p.stream)}).StringSlice()
	if err != nil || len(found) != 5 {
		return end, "", false, fmt.Errorf("feed: read the newest position: %w", err)
	}
	if epoch = found[1]; epoch != "" && p.trust.Verifier.Check(ctx, purposeEpoch, []byte(epoch), []byte(found[4])) != nil {
		p.knows("", true) // the relay names it again
		epoch = ""
	} else {
		p.knows(epoch, false)
	}
	if found[0] == "" {
		return end, epoch, false, nil
	}
	position, record, err := parseID(found[0])
	if err != nil {
		return end, epoch, false, err
	}
	end.Position = position
	if record {
		end.EventID, _ = domain.ParseEventID(found[3]) // an entry of others has no id
	} else if m, err := p.marshaller.Unmarshal(map[string]any{redisstream.UUIDHeaderKey: found[3], "metadata": found[2], "payload": ""}); err == nil {
		end.EventID, _ = domain.ParseEventID(m.Metadata.Get(metaPrevID))
	}
	return end, epoch, true, nil
}

// parseID reads an entry's id: its position, and whether it is the id of a record.
func parseID(id string) (position domain.Position, record bool, err error) {
	first, second, _ := strings.Cut(id, "-")
	n, err := strconv.ParseInt(first, 10, 64)
	if err != nil {
		return 0, false, fmt.Errorf("feed: entry id %q: %w", id, err)
	}
	return domain.Position(n), second == "0", nil
}

// Publish implements broker.Publisher.
func (p *Publisher) Publish(ctx context.Context, prev domain.Place, records []domain.Record) error {
	if p.trust.Key == nil {
		return errNoKey
	}
	for len(records) > 0 {
		n := min(len(records), publishChunk)
		messages := make([]*message.Message, n)
		var erased []string
		for i := range records[:n] {
			if broker.Forgets(records[i]) {
				erased = append(erased, strconv.FormatInt(int64(records[i].Position), 10))
			}
			var err error
			if messages[i], err = entry(prev, &records[i]); err != nil {
				return err
			}
			prev = domain.PlaceOf(records[i])
		}
		prove(p.trust.Key, messages...)
		args := make([]any, 0, 4+4*n)
		args = append(args, p.keep, p.known(), strings.Join(erased, " "), p.forget)
		for i, m := range messages {
			values, err := p.marshaller.Marshal(p.stream, m)
			if err != nil {
				return fmt.Errorf("feed: encode record %d: %w", records[i].Position, err)
			}
			args = append(args, int64(records[i].Position), values[redisstream.UUIDHeaderKey], values["metadata"], values["payload"])
		}
		done, err := publishScript.Run(ctx, p.client, []string{p.stream, epochs(p.stream), erasures(p.stream)}, args...).Int()
		if err == nil && done == 0 {
			err = errEpoch
		}
		if err != nil {
			return fmt.Errorf("feed: publish to %d: %w", prev.Position, err)
		}
		p.metrics.Put(prev.Position)
		records = records[n:]
	}
	return nil
}

// entry makes the message of a record.
func entry(prev domain.Place, r *domain.Record) (*message.Message, error) {
	// The data is the payload as it is, because encoding/json would compact and
	// escape it and a hash over it would no longer fit.
	header := *r
	header.Data = nil
	header.Meta.Source, header.Meta.Request = "", "" // which tell about a person, and followers nothing
	text, err := json.Marshal(header)
	if err != nil {
		return nil, fmt.Errorf("feed: encode record %d: %w", r.Position, err)
	}
	m := message.NewMessage(r.ID.String(), message.Payload(r.Data))
	m.Metadata.Set(metaRecord, string(text))
	m.Metadata.Set(metaPosition, strconv.FormatInt(int64(r.Position), 10))
	m.Metadata.Set(metaPrev, strconv.FormatInt(int64(prev.Position), 10))
	setPrevID(m, prev.EventID)
	return m, nil
}

// Heartbeat implements broker.Publisher.
func (p *Publisher) Heartbeat(ctx context.Context, place domain.Place) error {
	at := strconv.FormatInt(int64(place.Position), 10)
	m := message.NewMessage("control", nil)
	m.Metadata = message.Metadata{metaPosition: at, metaPrev: at, metaControl: "1"}
	setPrevID(m, place.EventID)
	if p.trust.Key == nil {
		return errNoKey
	}
	prove(p.trust.Key, m)
	values, err := p.marshaller.Marshal(p.stream, m)
	if err != nil {
		return fmt.Errorf("feed: encode a control entry: %w", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	id, err := heartbeatScript.Run(ctx, p.client, []string{p.stream, erasures(p.stream)}, at, m.UUID, values["metadata"], p.control).Text()
	if err != nil {
		return fmt.Errorf("feed: publish a control entry: %w", err)
	}
	if id != "" {
		p.control = id
	}
	return nil
}

// errEpoch is the reason why a publisher that knows another epoch may not publish.
var errEpoch = errors.New("the feed is in another epoch")

// Name implements broker.Publisher.
func (p *Publisher) Name(ctx context.Context, epoch string) error { return p.name(ctx, epoch, false) }

// Reset implements broker.Publisher.
func (p *Publisher) Reset(ctx context.Context, epoch string) error { return p.name(ctx, epoch, true) }

func (p *Publisher) name(ctx context.Context, epoch string, empty bool) error {
	p.mu.Lock()
	flag := 0
	switch {
	case empty:
		flag = 1
	case p.forged:
		flag = 2
	}
	p.mu.Unlock()
	if p.trust.Key == nil {
		return errNoKey
	}
	proof := p.trust.Key.Attest(purposeEpoch, []byte(epoch))[0]
	if err := nameScript.Run(ctx, p.client, []string{p.stream, epochs(p.stream)}, epoch, flag, proof).Err(); err != nil {
		return fmt.Errorf("feed: begin an epoch: %w", err)
	}
	p.knows(epoch, false)
	return nil
}

// known and knows read and set the epoch that this publisher knows.
func (p *Publisher) known() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.epoch
}

func (p *Publisher) knows(epoch string, forged bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.epoch, p.forged = epoch, forged
}

// setPrevID names the record before an entry, if it is known.
func setPrevID(m *message.Message, id domain.EventID) {
	if id != (domain.EventID{}) {
		m.Metadata.Set(metaPrevID, id.String())
	}
}

// decode reads a message. It gives the entry, or an error for a message that Tunnox has
// not written.
func decode(m *message.Message) (broker.Entry, error) {
	position, err1 := strconv.ParseInt(m.Metadata.Get(metaPosition), 10, 64)
	prev, err2 := strconv.ParseInt(m.Metadata.Get(metaPrev), 10, 64)
	if err := errors.Join(err1, err2); err != nil {
		return broker.Entry{}, err
	}
	e := broker.Entry{Position: domain.Position(position), Prev: domain.Position(prev)}
	if id := m.Metadata.Get(metaPrevID); id != "" {
		var err error
		if e.PrevID, err = domain.ParseEventID(id); err != nil {
			return e, err
		}
	}
	if m.Metadata.Get(metaControl) != "" {
		return e, nil
	}
	e.Record = &domain.Record{}
	if err := json.Unmarshal([]byte(m.Metadata.Get(metaRecord)), e.Record); err != nil {
		return broker.Entry{}, err
	}
	e.Record.Data = json.RawMessage(m.Payload)
	if e.Record.Position != e.Position {
		return broker.Entry{}, fmt.Errorf("entry %d holds record %d", e.Position, e.Record.Position)
	}
	return e, nil
}
