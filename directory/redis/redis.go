// Package redis is the directory for a cluster, in Redis. Every change is a script that
// compares epochs, so that a late node changes nothing that another node has written
// since.
package redis

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
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
	nodeTaken    = "{tunnox:nodes}:taken"
	nodeLeases   = "{tunnox:nodes}:leases"
	nodeMark     = "{tunnox:nodes}:mark"
	nodeNotices  = "{tunnox:nodes}:notices:" // followed by the run
	nodeSince    = "{tunnox:nodes}:since"
	nodePortions = "{tunnox:nodes}:shares:" // followed by the mapping; under the key tag of the leases, so that one script can use both
)

// Directory is a [directory.Directory] in one Redis database.
type Directory struct {
	client  goredis.UniversalClient
	channel string           // prefix of the nodes' Pub/Sub channels
	now     func() time.Time // nil = the server's clock

	renewals int // how many sessions one script renews

	mu     sync.Mutex
	leased map[string]int // guarded by mu; owner -> node number, to ask for the same id again after a flush
}

// New keeps the directory in the client's database. It does not close the client. now
// is for tests; nil is the Redis server's clock.
func New(client goredis.UniversalClient, now func() time.Time) *Directory {
	d := &Directory{client: client, channel: "tunnox:node:", now: now, leased: map[string]int{}, renewals: 200}
	if _, ok := client.(*goredis.ClusterClient); ok {
		d.renewals = 1 // all keys of a script must be on one node, and clients are on different nodes
	}
	if c, ok := client.(*goredis.Client); ok {
		// Pub/Sub does not know databases, and two databases may hold two directories.
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

// args gives the arguments with which every client script begins, followed by more.
func (d *Directory) args(more ...any) []any {
	return append([]any{d.clock(), directory.Kept.Milliseconds(), directory.Memory.Milliseconds()}, more...)
}

// Register implements directory.Directory.
func (d *Directory) Register(ctx context.Context, s directory.Session) (directory.Epoch, error) {
	text, err := json.Marshal(s)
	if err != nil {
		return 0, fmt.Errorf("directory: encode session: %w", err)
	}
	answer, err := registerScript.Run(ctx, d.client, []string{clientKey(s.ClientID)}, d.args(text, s.Node, s.Instance)...).StringSlice()
	if err != nil || len(answer) == 0 {
		return 0, fmt.Errorf("directory: register client %d: %w", s.ClientID, err)
	}
	epoch, err := strconv.ParseInt(answer[0], 10, 64)
	switch {
	case err != nil:
		return 0, fmt.Errorf("directory: register client %d: %w", s.ClientID, err)
	case epoch < 0:
		return 0, directory.ErrSuperseded
	}
	if err := d.tell(ctx, directory.Fenced, answer[1:]); err != nil {
		return 0, fmt.Errorf("directory: register client %d: %w", s.ClientID, err)
	}
	return directory.Epoch(epoch), nil
}

// tell sends nodes notices about their sessions. A text is epoch, space, JSON.
func (d *Directory) tell(ctx context.Context, kind directory.NoticeKind, texts []string) error {
	for _, text := range texts {
		n, ok := notice(string(kind) + " " + text)
		if !ok {
			continue // not a session of this version
		}
		if err := d.send(ctx, n.Session.Node, n.Session.Run, string(kind)+" "+text); err != nil {
			return err
		}
	}
	return nil
}

// send gives a notice to a node, at once and with the node's next beat.
func (d *Directory) send(ctx context.Context, node, run, text string) error {
	pipe := d.client.Pipeline()
	waiting := nodeNotices + run
	pipe.RPush(ctx, waiting, text)
	pipe.LTrim(ctx, waiting, -directory.MaxNotices, -1)
	pipe.PExpire(ctx, waiting, 4*directory.TTL)
	pipe.Publish(ctx, d.channel+node, text)
	if _, err := pipe.Exec(ctx); err != nil {
		return fmt.Errorf("tell %s: %w", node, err)
	}
	return nil
}

// Renew implements directory.Directory. One script renews some hundred sessions: fewer
// would cost more calls, more would block Redis for other callers too long.
func (d *Directory) Renew(ctx context.Context, sessions []directory.Session) (ended []directory.Notice, err error) {
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
		lines := strings.Split(outcome, "\n")
		switch lines[0] {
		case "f":
			ended = append(ended, directory.Notice{Kind: directory.Fenced, Session: sessions[i]})
		case "d":
			ended = append(ended, directory.Notice{Kind: directory.Disconnected, Session: sessions[i]})
		}
		if err := d.tell(ctx, directory.Fenced, lines[1:]); err != nil {
			return nil, fmt.Errorf("directory: renew %d sessions: %w", len(sessions), err)
		}
	}
	return ended, nil
}

// renew gives the outcome for each session.
func (d *Directory) renew(ctx context.Context, sessions []directory.Session) ([]string, error) {
	pipe := d.client.Pipeline()
	var replies []*goredis.Cmd
	for some := range slices.Chunk(sessions, d.renewals) {
		keys, args := make([]string, len(some)), d.args()
		for i, s := range some {
			text, err := json.Marshal(s)
			if err != nil {
				return nil, fmt.Errorf("encode session: %w", err)
			}
			keys[i] = clientKey(s.ClientID)
			args = append(args, text, s.Node, s.Instance, int64(s.Epoch))
		}
		replies = append(replies, renewScript.EvalSha(ctx, pipe, keys, args...))
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, err
	}
	var outcomes []string
	for _, reply := range replies {
		some, err := reply.StringSlice()
		if err != nil {
			return nil, err
		}
		outcomes = append(outcomes, some...)
	}
	if len(outcomes) != len(sessions) {
		return nil, fmt.Errorf("the script gave %d outcomes", len(outcomes))
	}
	return outcomes, nil
}

// Remove implements directory.Directory.
func (d *Directory) Remove(ctx context.Context, s directory.Session) error {
	err := removeScript.Run(ctx, d.client, []string{clientKey(s.ClientID)}, d.args(s.Node, int64(s.Epoch), directory.TTL.Milliseconds())...).Err()
	if err != nil {
		return fmt.Errorf("directory: remove client %d: %w", s.ClientID, err)
	}
	return nil
}

// Disconnect implements directory.Directory.
func (d *Directory) Disconnect(ctx context.Context, clientID int64) (nodes []string, err error) {
	texts, err := disconnectScript.Run(ctx, d.client, []string{clientKey(clientID)}, d.args(directory.TTL.Milliseconds())...).StringSlice()
	if err == nil {
		err = d.tell(ctx, directory.Disconnected, texts)
	}
	var held []directory.Session
	for _, text := range texts {
		if n, ok := notice(string(directory.Disconnected) + " " + text); ok {
			held, nodes = append(held, n.Session), append(nodes, n.Session.Node)
		}
	}
	var leases map[string]lease
	if err == nil {
		leases, err = d.leases(ctx, nodes...)
	}
	if err != nil {
		return nil, fmt.Errorf("directory: disconnect client %d: %w", clientID, err)
	}
	nodes = nil
	for _, s := range held {
		if leases[s.Node].live(s.Run) {
			nodes = append(nodes, s.Node)
		}
	}
	slices.Sort(nodes)
	return nodes, nil
}

// Lookup implements directory.Directory.
func (d *Directory) Lookup(ctx context.Context, clientIDs ...int64) ([]directory.Presence, error) {
	if len(clientIDs) == 0 {
		return nil, nil
	}
	pipe := d.client.Pipeline()
	clock := pipe.Time(ctx)
	replies := make([]*goredis.MapStringStringCmd, len(clientIDs))
	for i, id := range clientIDs {
		replies[i] = pipe.HGetAll(ctx, clientKey(id))
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, fmt.Errorf("directory: look up %d clients: %w", len(clientIDs), err)
	}
	now := clock.Val()
	if d.now != nil {
		now = d.now()
	}
	found, nodes := make([]directory.Presence, len(clientIDs)), map[string]bool{}
	for i, reply := range replies {
		var err error
		if found[i], err = presence(reply.Val(), now); err != nil {
			return nil, fmt.Errorf("directory: client %d: %w", clientIDs[i], err)
		}
		for _, s := range found[i].Sessions {
			nodes[s.Node] = true
		}
	}
	leases, err := d.leases(ctx, slices.Collect(maps.Keys(nodes))...)
	if err != nil {
		return nil, fmt.Errorf("directory: look up %d clients: %w", len(clientIDs), err)
	}
	for i := range found {
		found[i].Sessions = slices.DeleteFunc(found[i].Sessions, func(s directory.Session) bool {
			l := leases[s.Node]
			if at := l.beaten(s.Run); at.After(found[i].LastSeen) {
				found[i].LastSeen = at
			}
			return !l.live(s.Run)
		})
		found[i].Online = len(found[i].Sessions) > 0
	}
	return found, nil
}

// presence reads a client's hash, with all held sessions, live or not.
func presence(fields map[string]string, now time.Time) (p directory.Presence, err error) {
	for field, value := range fields {
		switch {
		case field == "seen":
			seen, err := strconv.ParseInt(value, 10, 64)
			if err != nil {
				return p, err
			}
			p.LastSeen = time.UnixMilli(seen).UTC()
		case strings.HasPrefix(field, "@"):
			ends, rest, _ := strings.Cut(value, " ")
			expires, err := strconv.ParseInt(ends, 10, 64)
			if err != nil {
				return p, err
			}
			epoch, rest, _ := strings.Cut(rest, " ")
			text, held := strings.CutPrefix(rest, "h ")
			if !held || expires <= now.UnixMilli() {
				continue
			}
			s, err := session(epoch, text)
			if err != nil {
				return p, err
			}
			p.Sessions = append(p.Sessions, s)
		}
	}
	slices.SortFunc(p.Sessions, func(a, b directory.Session) int { return cmp.Compare(b.Epoch, a.Epoch) })
	return p, nil
}

// session reads a session. Its epoch is stored beside it.
func session(epoch, text string) (s directory.Session, err error) {
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return s, err
	}
	n, err := strconv.ParseInt(epoch, 10, 64)
	s.Epoch = directory.Epoch(n)
	return s, err
}

// Watch implements directory.Directory, by Pub/Sub.
func (d *Directory) Watch(ctx context.Context, node string, fn func(directory.Notice)) error {
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
			if n, ok := notice(m.Payload); ok { // otherwise the message is not a notice of this version
				fn(n)
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// notice reads a message: its kind and, for a session, epoch and JSON.
func notice(text string) (n directory.Notice, ok bool) {
	kind, rest, _ := strings.Cut(text, " ")
	n.Kind = directory.NoticeKind(kind)
	switch n.Kind {
	case directory.Drain:
		return n, true
	case directory.Wanted:
		var err error
		n.Mapping, err = strconv.ParseInt(rest, 10, 64)
		return n, err == nil
	case directory.Fenced, directory.Disconnected:
		epoch, text, _ := strings.Cut(rest, " ")
		var err error
		n.Session, err = session(epoch, text)
		return n, err == nil
	}
	return n, false
}

// Recall says which id an owner had in an earlier run of its process. LeaseID then
// gives the same id, unless another owner has it for good.
func (d *Directory) Recall(owner, id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if n := nodeNumber(id); n > 0 {
		d.leased[owner] = n
	}
}

// LeaseID implements directory.Directory.
func (d *Directory) LeaseID(ctx context.Context, owner string) (string, error) {
	d.mu.Lock()
	had := d.leased[owner]
	d.mu.Unlock()
	n, err := leaseScript.Run(ctx, d.client, []string{nodeIDs, nodeOwners, nodeRecords, nodeLeases, nodeTaken},
		d.clock(), directory.TTL.Milliseconds(), owner, had, directory.MaxNodes, directory.IDKept.Milliseconds(), d.channel).Int()
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
