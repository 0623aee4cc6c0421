package forwarder_test

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/broker"
	"github.com/tunnox-net/tunnox/directory"
	"github.com/tunnox-net/tunnox/directory/memory"
	"github.com/tunnox-net/tunnox/domain"
)

// plane is a control plane in memory: it decides commands with the domain's own
// rules, keeps the records, feeds them, and answers lookups from their fold. It
// stands for everything behind the forwarder, whose own tests are elsewhere.
type plane struct {
	mu       sync.Mutex
	records  []domain.Record
	states   domain.States
	versions map[domain.StreamID]domain.Version
	moved    chan struct{} // closed and made anew with each append
	trimmed  domain.Position
	halted   domain.Position // the feed stops here; 0 = it does not
	hidden   domain.Position // lookups see the log only up to here; 0 = all of it
	ids      atomic.Int64
	lookups  atomic.Int64
	away     atomic.Bool  // lookups fail
	cursed   atomic.Int64 // looking this client up panics
}

func newPlane() *plane {
	return &plane{states: domain.States{}, versions: map[domain.StreamID]domain.Version{}, moved: make(chan struct{})}
}

// do decides a command and gives the log's position after it.
func (p *plane) do(t testing.TB, c domain.Command) domain.Position {
	t.Helper()
	position, err := p.try(c)
	if err != nil {
		t.Fatalf("%s: %v", c.CommandName(), err)
	}
	return position
}

// try is do for commands that may be refused.
func (p *plane) try(c domain.Command) (domain.Position, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, id := range c.Reads() {
		p.state(id)
	}
	decision, err := c.Decide(p.states)
	for needed := new(domain.NeedStreams); errors.As(err, &needed); decision, err = c.Decide(p.states) {
		for _, id := range needed.Streams {
			p.state(id)
		}
	}
	if err != nil {
		return 0, err
	}
	at := time.Now()
	for _, change := range decision.Changes {
		name, schema, data, err := domain.Encode(change.Event)
		if err != nil {
			return 0, err
		}
		p.versions[change.Stream]++
		record := domain.Record{Position: domain.Position(len(p.records) + 1), Stream: change.Stream,
			Version: p.versions[change.Stream], Name: name, Schema: schema, Data: json.RawMessage(data),
			Meta: domain.Metadata{At: at, Command: c.CommandName()}}
		p.state(change.Stream).Apply(change.Event, at)
		p.records = append(p.records, record)
	}
	close(p.moved)
	p.moved = make(chan struct{})
	return domain.Position(len(p.records)), nil
}

func (p *plane) state(id domain.StreamID) domain.Aggregate {
	if p.states[id] == nil {
		p.states[id] = domain.NewAggregate(id)
	}
	return p.states[id]
}

// halt stops the feed until trim.
func (p *plane) halt() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.halted = domain.Position(len(p.records))
}

// trim drops the feed up to now, as a flush does: followers that are behind it
// get a gap, and so does everybody who follows at this moment.
func (p *plane) trim() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.trimmed, p.halted = domain.Position(len(p.records)), 0
	close(p.moved)
	p.moved = make(chan struct{})
}

// IngressView implements forwarder.Lookup.
func (p *plane) IngressView(ctx context.Context, what domain.Ingress, min domain.Position) (domain.IngressView, error) {
	p.lookups.Add(1)
	if p.away.Load() {
		return domain.IngressView{}, errors.New("the read model is away")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	states, versions, position := p.states, p.versions, domain.Position(len(p.records))
	if p.hidden > 0 {
		if min > p.hidden {
			return domain.IngressView{}, errors.New("the read model is stale")
		}
		states, versions, position = p.foldTo(p.hidden)
	}
	v := domain.IngressView{Position: position, Ingress: what}
	users, accounts := map[int64]bool{}, map[int64]bool{}
	for stream, state := range states {
		m, ok := state.(*domain.Mapping)
		if !ok || !m.Live() || !what.Has(m) {
			continue
		}
		v.Mappings = append(v.Mappings, domain.Versioned[domain.Mapping]{Version: versions[stream], State: *m})
		users[m.UserID] = true
		for _, account := range m.Accounts() {
			accounts[account] = true
		}
	}
	for _, id := range slices.Sorted(maps.Keys(users)) {
		if u, ok := states[domain.UserStream(id)].(*domain.User); ok && u.Live() {
			v.Users = append(v.Users, domain.Versioned[domain.User]{Version: versions[domain.UserStream(id)], State: *u})
		}
	}
	for _, id := range slices.Sorted(maps.Keys(accounts)) {
		if q, ok := states[domain.QuotaStream(id)].(*domain.Quota); ok && q.Exists() {
			v.Limits = append(v.Limits, domain.Versioned[domain.AccountLimits]{Version: versions[domain.QuotaStream(id)],
				State: domain.AccountLimits{Account: id, Limits: q.Limits}})
		}
	}
	return v, nil
}

// ClientView implements forwarder.Lookup.
func (p *plane) ClientView(ctx context.Context, clientID int64, min domain.Position) (domain.ClientView, error) {
	p.lookups.Add(1)
	if cursed := p.cursed.Load(); cursed != 0 && clientID == cursed {
		panic("cursed")
	}
	if p.away.Load() {
		return domain.ClientView{}, errors.New("the read model is away")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	states, versions, position := p.states, p.versions, domain.Position(len(p.records))
	if p.hidden > 0 {
		if min > p.hidden {
			return domain.ClientView{}, errors.New("the read model is stale")
		}
		states, versions, position = p.foldTo(p.hidden)
	}
	client, _ := states[domain.ClientStream(clientID)].(*domain.Client)
	if client == nil || !client.Live() && client.ClaimedAs == 0 {
		return domain.ClientView{}, &domain.Error{Code: domain.CodeClientNotFound}
	}
	v := domain.ClientView{Position: position, Client: domain.Versioned[domain.Client]{
		Version: versions[domain.ClientStream(clientID)], State: *client}}
	users, accounts := map[int64]bool{client.UserID: true}, map[int64]bool{client.AccountID(): true}
	for stream, state := range states {
		m, ok := state.(*domain.Mapping)
		if !ok || !m.Live() || (m.SourceClientID != clientID && m.TargetClientID != clientID) {
			continue
		}
		v.Mappings = append(v.Mappings, domain.Versioned[domain.Mapping]{Version: versions[stream], State: *m})
		users[m.UserID] = true
		for _, account := range m.Accounts() {
			accounts[account] = true
		}
	}
	for _, id := range slices.Sorted(maps.Keys(users)) {
		if u, ok := states[domain.UserStream(id)].(*domain.User); ok && u.Live() {
			v.Users = append(v.Users, domain.Versioned[domain.User]{Version: versions[domain.UserStream(id)], State: *u})
		}
	}
	for _, id := range slices.Sorted(maps.Keys(accounts)) {
		if q, ok := states[domain.QuotaStream(id)].(*domain.Quota); ok {
			v.Limits = append(v.Limits, domain.Versioned[domain.AccountLimits]{Version: versions[domain.QuotaStream(id)],
				State: domain.AccountLimits{Account: id, Limits: q.Limits}})
		}
	}
	return v, nil
}

// foldTo gives the fold of the log up to p, as a read model that lags.
func (p *plane) foldTo(to domain.Position) (domain.States, map[domain.StreamID]domain.Version, domain.Position) {
	states, versions := domain.States{}, map[domain.StreamID]domain.Version{}
	for _, r := range p.records[:to] {
		if states[r.Stream] == nil {
			states[r.Stream] = domain.NewAggregate(r.Stream)
		}
		if err := domain.Fold(states[r.Stream], []domain.Record{r}); err != nil {
			panic(err)
		}
		versions[r.Stream] = r.Version
	}
	return states, versions, to
}

// Register implements forwarder.Registrar.
func (p *plane) Register(ctx context.Context, r domain.Registration) (int64, error) {
	if r.Invite != nil {
		c, err := r.Redeem()
		if err == nil {
			c.ClientID, c.At = domain.FirstClientID+p.ids.Add(1), time.Now()
			_, err = p.try(c)
		}
		return c.ClientID, err
	}
	id := domain.FirstAnonymousID + p.ids.Add(1)
	_, err := p.try(domain.RegisterClient{ID: id, Name: r.Name, PublicKey: r.PublicKey})
	return id, err
}

// Follow implements broker.Follower.
func (p *plane) Follow(ctx context.Context, after domain.Position) (broker.Subscription, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return &subscription{p: p, at: after, trimmed: p.trimmed}, nil
}

type subscription struct {
	p       *plane
	at      domain.Position
	trimmed domain.Position
}

func (s *subscription) Next(ctx context.Context) (broker.Entry, error) {
	for {
		s.p.mu.Lock()
		moved, last := s.p.moved, domain.Position(len(s.p.records))
		if s.p.halted > 0 {
			last = s.p.halted
		}
		gap := s.p.trimmed > s.trimmed || s.at < s.p.trimmed
		var record domain.Record
		if !gap && s.at < last {
			record = s.p.records[s.at]
		}
		s.p.mu.Unlock()
		switch {
		case gap:
			return broker.Entry{}, broker.ErrGap
		case record.Position > 0:
			s.at = record.Position
			return broker.Entry{Position: s.at, Prev: s.at - 1, Record: &record}, nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return broker.Entry{}, ctx.Err()
		}
	}
}

func (s *subscription) Close() error { return nil }

// presences is a directory in memory that can be flushed, and where nodes need no
// lease to be found.
type presences struct {
	mu    sync.Mutex
	inner *memory.Directory
	nodes map[string]directory.Node
	deaf  map[string]int // heartbeats that failed, by node; nil: none fails
}

func newPresences() *presences {
	return &presences{inner: memory.New(nil), nodes: map[string]directory.Node{}}
}

func (d *presences) now() *memory.Directory {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.inner
}

func (d *presences) Beat(ctx context.Context, node, run string) (directory.Beat, error) {
	d.mu.Lock()
	if d.deaf != nil {
		defer d.mu.Unlock()
		d.deaf[node]++
		return directory.Beat{}, errors.New("the directory is away")
	}
	d.mu.Unlock()
	return d.now().Beat(ctx, node, run)
}

func (d *presences) Register(ctx context.Context, s directory.Session) (directory.Epoch, error) {
	return d.now().Register(ctx, s)
}

func (d *presences) Renew(ctx context.Context, sessions []directory.Session) ([]directory.Notice, error) {
	return d.now().Renew(ctx, sessions)
}

func (d *presences) Remove(ctx context.Context, s directory.Session) error {
	return d.now().Remove(ctx, s)
}

func (d *presences) Disconnect(ctx context.Context, id int64) ([]string, error) {
	return d.now().Disconnect(ctx, id)
}

func (d *presences) Lookup(ctx context.Context, ids ...int64) ([]directory.Presence, error) {
	return d.now().Lookup(ctx, ids...)
}

func (d *presences) Watch(ctx context.Context, node string, fn func(directory.Notice)) error {
	return d.now().Watch(ctx, node, fn)
}

func (d *presences) RequestDrain(ctx context.Context, node string) error {
	return d.now().RequestDrain(ctx, node)
}

func (d *presences) Expel(ctx context.Context, node string) error { return d.now().Expel(ctx, node) }

func (d *presences) LeaseID(ctx context.Context, owner string) (string, error) {
	return d.now().LeaseID(ctx, owner)
}

func (d *presences) Reserve(ctx context.Context, s directory.Portion) (directory.Granted, error) {
	if d.isAway() {
		return directory.Granted{}, errors.New("the directory is away")
	}
	return d.now().Reserve(ctx, s)
}

func (d *presences) Since(ctx context.Context) (string, error) {
	if d.isAway() {
		return "", errors.New("the directory is away")
	}
	return d.now().Since(ctx)
}

func (d *presences) isAway() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.deaf != nil
}

// of gives a client's newest session, if it has one.
func (d *presences) of(clientID int64) (directory.Session, bool) {
	all := d.all(clientID)
	if len(all) == 0 {
		return directory.Session{}, false
	}
	return all[0], true
}

// all gives a client's sessions.
func (d *presences) all(clientID int64) []directory.Session {
	found, err := d.Lookup(context.Background(), clientID)
	if err != nil {
		panic(err)
	}
	return found[0].Sessions
}

func (d *presences) Announce(_ context.Context, _ string, n directory.Node) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.nodes[n.ID] = n
	return nil
}

func (d *presences) Withdraw(_ context.Context, _, id string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.nodes, id)
	return nil
}

func (d *presences) Nodes(_ context.Context, ids ...string) (found []directory.Node, _ error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for id, n := range d.nodes {
		if len(ids) == 0 || slices.Contains(ids, id) {
			found = append(found, n)
		}
	}
	directory.SortNodes(found)
	return found, nil
}

func (d *presences) Survey(ctx context.Context, _ string) (found []directory.Node, now string, err error) {
	found, err = d.Nodes(ctx)
	return found, "", err
}

// missed gives how many heartbeats of a node have failed.
func (d *presences) missed(node string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.deaf[node]
}

// away begins or ends a time in which heartbeats fail.
func (d *presences) away(is bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.deaf = nil; is {
		d.deaf = map[string]int{}
	}
}

// flush loses everything.
func (d *presences) flush() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.inner = memory.New(nil)
	clear(d.nodes)
}
