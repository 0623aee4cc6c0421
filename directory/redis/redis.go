// Package redis is the directory of a cluster, in Redis. Every change is a
// script that compares epochs, so that a node that is late changes nothing that
// another has written since.
package redis

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/tunnox-net/tunnox/directory"
)

const (
	clientPrefix = "tunnox:client:"
	nodeIDs      = "{tunnox:nodes}:ids"
	nodeOwners   = "{tunnox:nodes}:owners"
	nodeRecords  = "{tunnox:nodes}:records"
)

// Directory is a [directory.Directory] in one Redis database.
type Directory struct {
	client  goredis.UniversalClient
	channel string           // prefix of the nodes' Pub/Sub channels
	now     func() time.Time // nil = the server's clock

	mu     sync.Mutex
	leased map[string]int // guarded by mu; owner -> node number, to ask for it again after a flush
}

// New keeps the directory in the client's database; it does not close the
// client. now is for tests; nil is the Redis server's clock.
func New(client goredis.UniversalClient, now func() time.Time) *Directory {
	d := &Directory{client: client, channel: "tunnox:fenced:", now: now, leased: map[string]int{}}
	if c, ok := client.(*goredis.Client); ok {
		// Pub/Sub knows no databases, and two of them may hold two directories.
		d.channel += strconv.Itoa(c.Options().DB) + ":"
	}
	return d
}

func clientKey(id int64) string { return clientPrefix + strconv.FormatInt(id, 10) }

func (d *Directory) clock() int64 {
	if d.now == nil {
		return 0
	}
	return d.now().UnixMilli()
}

// args gives what every client script begins with, and then more.
func (d *Directory) args(more ...any) []any {
	return append([]any{d.clock(), directory.TTL.Milliseconds(), directory.Memory.Milliseconds(), d.channel}, more...)
}

// Register implements directory.Directory.
func (d *Directory) Register(ctx context.Context, s directory.Session) (directory.Epoch, error) {
	text, err := json.Marshal(s)
	if err != nil {
		return 0, fmt.Errorf("directory: encode session: %w", err)
	}
	epoch, err := registerScript.Run(ctx, d.client, []string{clientKey(s.ClientID)}, d.args(text, s.Node)...).Int64()
	if err != nil {
		return 0, fmt.Errorf("directory: register client %d: %w", s.ClientID, err)
	}
	return directory.Epoch(epoch), nil
}

// Renew implements directory.Directory. The scripts go in one pipeline, one a
// client, because clients may live on different nodes of a Redis Cluster.
func (d *Directory) Renew(ctx context.Context, sessions []directory.Session) (fenced []directory.Session, err error) {
	if len(sessions) == 0 {
		return nil, nil
	}
	outcomes, err := d.renew(ctx, sessions)
	if goredis.HasErrorPrefix(err, "NOSCRIPT") { // Redis was restarted
		if err := renewScript.Load(ctx, d.client).Err(); err != nil {
			return nil, fmt.Errorf("directory: load scripts: %w", err)
		}
		outcomes, err = d.renew(ctx, sessions)
	}
	if err != nil {
		return nil, fmt.Errorf("directory: renew %d sessions: %w", len(sessions), err)
	}
	for i, outcome := range outcomes {
		if n, err := outcome.Int(); err == nil && n == 0 {
			fenced = append(fenced, sessions[i])
		}
	}
	return fenced, nil
}

func (d *Directory) renew(ctx context.Context, sessions []directory.Session) ([]*goredis.Cmd, error) {
	outcomes := make([]*goredis.Cmd, len(sessions))
	pipe := d.client.Pipeline()
	for i, s := range sessions {
		text, err := json.Marshal(s)
		if err != nil {
			return nil, fmt.Errorf("encode session: %w", err)
		}
		outcomes[i] = renewScript.EvalSha(ctx, pipe, []string{clientKey(s.ClientID)}, d.args(text, s.Node, int64(s.Epoch))...)
	}
	_, err := pipe.Exec(ctx)
	return outcomes, err
}

// Remove implements directory.Directory.
func (d *Directory) Remove(ctx context.Context, s directory.Session) error {
	err := removeScript.Run(ctx, d.client, []string{clientKey(s.ClientID)}, d.args(int64(s.Epoch))...).Err()
	if err != nil {
		return fmt.Errorf("directory: remove client %d: %w", s.ClientID, err)
	}
	return nil
}

// Lookup implements directory.Directory.
func (d *Directory) Lookup(ctx context.Context, clientIDs ...int64) ([]directory.Presence, error) {
	if len(clientIDs) == 0 {
		return nil, nil
	}
	pipe := d.client.Pipeline()
	clock := pipe.Time(ctx)
	replies := make([]*goredis.SliceCmd, len(clientIDs))
	for i, id := range clientIDs {
		replies[i] = pipe.HMGet(ctx, clientKey(id), "epoch", "session", "expires", "seen")
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, fmt.Errorf("directory: look up %d clients: %w", len(clientIDs), err)
	}
	now := clock.Val()
	if d.now != nil {
		now = d.now()
	}
	found := make([]directory.Presence, len(clientIDs))
	for i, reply := range replies {
		var err error
		if found[i], err = presence(reply.Val(), now); err != nil {
			return nil, fmt.Errorf("directory: client %d: %w", clientIDs[i], err)
		}
	}
	return found, nil
}

// presence reads a client's hash: epoch, session, expires, seen.
func presence(fields []any, now time.Time) (p directory.Presence, err error) {
	texts := make([]string, len(fields))
	for i, field := range fields {
		text, ok := field.(string)
		if !ok {
			return p, nil // never seen, or long ago
		}
		texts[i] = text
	}
	expires, err := strconv.ParseInt(texts[2], 10, 64)
	if err != nil {
		return p, err
	}
	seen, err := strconv.ParseInt(texts[3], 10, 64)
	if err != nil {
		return p, err
	}
	p.LastSeen = time.UnixMilli(seen).UTC()
	if texts[1] == "" || expires <= now.UnixMilli() {
		return p, nil
	}
	p.Online = true
	p.Session, err = session(texts[0], texts[1])
	return p, err
}

// session reads a session, whose epoch is kept beside it.
func session(epoch, text string) (s directory.Session, err error) {
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return s, err
	}
	n, err := strconv.ParseInt(epoch, 10, 64)
	s.Epoch = directory.Epoch(n)
	return s, err
}

// Watch implements directory.Directory, by Pub/Sub.
func (d *Directory) Watch(ctx context.Context, node string, fn func(directory.Session)) error {
	sub := d.client.Subscribe(ctx, d.channel+node)
	defer sub.Close()
	if _, err := sub.Receive(ctx); err != nil {
		return fmt.Errorf("directory: watch %s: %w", node, err)
	}
	notices := sub.Channel()
	for {
		select {
		case m, ok := <-notices:
			if !ok {
				return fmt.Errorf("directory: watch %s: subscription ended", node)
			}
			epoch, text, _ := strings.Cut(m.Payload, " ")
			if s, err := session(epoch, text); err == nil { // else it is nobody's of ours
				fn(s)
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// LeaseID implements directory.Directory.
func (d *Directory) LeaseID(ctx context.Context, owner string) (string, error) {
	d.mu.Lock()
	had := d.leased[owner]
	d.mu.Unlock()
	n, err := leaseScript.Run(ctx, d.client, []string{nodeIDs, nodeOwners, nodeRecords},
		d.clock(), directory.TTL.Milliseconds(), owner, had, directory.MaxNodes).Int()
	switch {
	case err != nil:
		return "", fmt.Errorf("directory: lease a node id: %w", err)
	case n == 0:
		return "", directory.ErrNoFreeID
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.leased[owner] = n
	return directory.NodeID(n), nil
}
