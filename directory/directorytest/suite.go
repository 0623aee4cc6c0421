// Package directorytest is the suite that every directory must pass.
package directorytest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/directory"
)

// Clock is the time that the directories under test see.
type Clock struct {
	mu  sync.Mutex
	now time.Time // guarded by mu
}

// Now gives the present time.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Advance moves the present time.
func (c *Clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// Backend is one directory as two nodes see it.
type Backend struct {
	A, B  directory.Directory
	Clock *Clock
	// Flush loses all data; nil for a directory that cannot be flushed alone.
	Flush func()
}

// NewClock gives a clock that begins at an arbitrary time.
func NewClock() *Clock { return &Clock{now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)} }

// Run runs the suite. open gives an empty directory for each test.
func Run(t *testing.T, open func(testing.TB) Backend) {
	tests := []struct {
		name string
		run  func(*testing.T, Backend)
	}{
		{"a session is found as it was registered", testRegister},
		{"leases expire, and what was seen stays known", testExpire},
		{"renewed ten lifetimes long", testRenew},
		{"very many are renewed rarely", testRefreshEvery},
		{"the newer fences the older", testFence},
		{"a fenced instance does not come back", testSuperseded},
		{"an instance has a session at each of several nodes", testSeveral},
		{"a newer instance fences all sessions of the older", testFenceAll},
		{"a late clean-up never ends what another node wrote", testLateCleanUp},
		{"an agent that moves is not erased by its old node", testMove},
		{"disconnected wherever it is", testDisconnect},
		{"disconnected while nobody listens", testDisconnectUnheard},
		{"epochs rise under concurrency", testConcurrent},
		{"a removed session stays removed", testRemoved},
		{"a flush is mended by renewing", testFlush},
		{"node ids", testLeaseID},
		{"an expelled node is gone, and nobody gets its id", testExpel},
		{"a thousand owners", testThousandOwners},
		{"nodes are found while they announce themselves", testNodes},
		{"who surveys the nodes again hears of changes only", testSurvey},
		{"a node that lost its id overwrites nothing", testNodesFenced},
		{"a node is asked to drain, once", testDrain},
		{"the sessions of a node live and end with its run", testRuns},
		{"a limit is divided among nodes and never exceeded", testPortions},
		{"portions end with the lease of their run", testPortionsEnd},
		{"portions that were lost are given to nobody else", testPortionsFlushed},
		{"portions at random", testPortionsAtRandom},
		{"contexts that ended", testContext},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			b := open(t)
			alive(t, b.A, "node-001", "node-002", "node-003", "node-004")
			test.run(t, b)
		})
	}
}

var drawn atomic.Int64

// session gives a session of a new instance.
func session(client int64, node string) directory.Session {
	return of(fmt.Sprintf("instance %d", drawn.Add(1)), client, node)
}

// of gives a session of the instance.
func of(instance string, client int64, node string) directory.Session {
	return directory.Session{ClientID: client, Node: node, Run: runOf(node), Session: node + "-s1", Instance: instance, Version: "1.2.3",
		Address: "192.0.2.7:5555", Since: time.Date(2026, 3, 1, 11, 59, 0, 0, time.UTC), ConfigAck: 4, Transport: "quic"}
}

func register(t testing.TB, d directory.Directory, s directory.Session) directory.Session {
	t.Helper()
	epoch, err := d.Register(context.Background(), s)
	if err != nil {
		t.Fatalf("register: %v", err)
	}
	s.Epoch = epoch
	return s
}

// renew gives the fenced sessions.
func renew(t testing.TB, d directory.Directory, sessions ...directory.Session) (fenced []directory.Session) {
	t.Helper()
	ended, err := d.Renew(context.Background(), sessions)
	if err != nil {
		t.Fatalf("renew: %v", err)
	}
	for _, n := range ended {
		if n.Kind != directory.Fenced {
			t.Fatalf("renew: %+v", n)
		}
		fenced = append(fenced, n.Session)
	}
	return fenced
}

// beat prolongs the lease of a node in its only run, and gives its notices.
func beat(t testing.TB, d directory.Directory, node string, known bool) []directory.Notice {
	t.Helper()
	b, err := d.Beat(context.Background(), node, runOf(node))
	if err != nil || b.Known != known {
		t.Fatalf("beat of %s: %+v, %v; want known %v", node, b, err, known)
	}
	return b.Notices
}

// alive begins the lease of each node.
func alive(t testing.TB, d directory.Directory, nodes ...string) {
	t.Helper()
	for _, node := range nodes {
		if _, err := d.Beat(context.Background(), node, runOf(node)); err != nil {
			t.Fatal(err)
		}
	}
}

func runOf(node string) string { return "run-" + node }

func lookup(t testing.TB, d directory.Directory, id int64) directory.Presence {
	t.Helper()
	found, err := d.Lookup(context.Background(), id)
	if err != nil || len(found) != 1 {
		t.Fatalf("lookup: %v, %v", found, err)
	}
	return found[0]
}

// online checks that the client has exactly these sessions, the newest first.
func online(t testing.TB, d directory.Directory, want ...directory.Session) {
	t.Helper()
	if p := lookup(t, d, want[0].ClientID); !p.Online || !slices.Equal(p.Sessions, want) {
		t.Fatalf("client is %+v, want online as %+v", p, want)
	}
}

// watch gives the notices of a node until the test ends.
func watch(t *testing.T, d directory.Directory, node string) <-chan directory.Notice {
	notices := make(chan directory.Notice, 1000)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Watch(ctx, node, func(n directory.Notice) { notices <- n }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("watch: %v", err)
		}
	})
	return notices
}

// told repeats do until the node is told of its result, because a watch needs a moment
// to begin. A notice about an earlier result is allowed.
func told(t *testing.T, notices <-chan directory.Notice, do func() (want directory.Notice), earlier ...directory.Notice) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		earlier = append(earlier, do())
		select {
		case n := <-notices:
			if !slices.Contains(earlier, n) {
				t.Fatalf("notice %+v, want one of %+v", n, earlier)
			}
			return
		case <-time.After(50 * time.Millisecond):
		}
	}
	t.Fatal("no notice")
}

func testRegister(t *testing.T, b Backend) {
	if found, err := b.B.Lookup(context.Background()); len(found) != 0 || err != nil {
		t.Errorf("lookup of nobody: %v, %v", found, err)
	}
	if p := lookup(t, b.A, 7); p.Online || !p.LastSeen.IsZero() {
		t.Errorf("presence of a client never seen: %+v", p)
	}
	s := register(t, b.A, session(7, "node-001"))
	online(t, b.B, s)
	other := register(t, b.B, session(8, "node-002"))
	found, err := b.A.Lookup(context.Background(), 8, 6, 7)
	if err != nil || !slices.Equal(found[0].Sessions, []directory.Session{other}) || found[1].Online ||
		!slices.Equal(found[2].Sessions, []directory.Session{s}) {
		t.Errorf("lookup of three: %+v, %v", found, err)
	}
	if !found[2].LastSeen.Equal(b.Clock.Now()) {
		t.Errorf("last seen %v, want %v", found[2].LastSeen, b.Clock.Now())
	}
}

func testExpire(t *testing.T, b Backend) {
	begin := b.Clock.Now()
	first := register(t, b.A, session(7, "node-001"))
	b.Clock.Advance(directory.TTL - time.Millisecond)
	online(t, b.B, first)
	b.Clock.Advance(time.Millisecond)
	p := lookup(t, b.B, 7)
	if p.Online || !p.LastSeen.Equal(begin) {
		t.Errorf("after the lease: %+v, want offline, seen %v", p, begin)
	}
	beat(t, b.A, "node-001", false)
	if fenced := renew(t, b.A, first); len(fenced) != 0 {
		t.Errorf("renewed late, but nobody else came: fenced %+v", fenced)
	}
	online(t, b.B, first)
	b.Clock.Advance(20 * 24 * time.Hour)
	if again := register(t, b.B, session(7, "node-002")); again.Epoch <= first.Epoch {
		t.Errorf("epoch %d after %d", again.Epoch, first.Epoch)
	}
	if fenced := renew(t, b.A, first); !slices.Equal(fenced, []directory.Session{first}) {
		t.Errorf("renewed weeks late: fenced %+v", fenced)
	}
}

// testRenew: a node's heartbeat keeps all of its sessions live, and a renewal from time
// to time keeps them from being forgotten.
func testRenew(t *testing.T, b Backend) {
	var sessions []directory.Session
	for id := range int64(1000) {
		sessions = append(sessions, register(t, b.A, session(id+1, "node-001")))
	}
	for range 30 {
		b.Clock.Advance(directory.TTL / 3)
		beat(t, b.A, "node-001", true)
	}
	first := b.Clock.Now()
	if p := lookup(t, b.B, 1000); !p.LastSeen.Equal(first) {
		t.Errorf("last seen %v, want %v", p.LastSeen, first)
	}
	for range 10 {
		for range 3 {
			b.Clock.Advance(directory.Refresh / 3)
			alive(t, b.A, "node-001")
		}
		sessions[3].ConfigAck++
		if fenced := renew(t, b.A, sessions...); len(fenced) != 0 {
			t.Fatalf("fenced: %+v", fenced)
		}
	}
	for _, s := range []directory.Session{sessions[0], sessions[3], sessions[999]} {
		online(t, b.B, s)
	}
	if fenced := renew(t, b.A); len(fenced) != 0 {
		t.Errorf("renewing nothing: %+v", fenced)
	}
}

// testRefreshEvery: ten minutes are enough until there are so many sessions that they
// would be too many writes. A session that is refreshed late is not forgotten before.
func testRefreshEvery(t *testing.T, b Backend) {
	for sessions, want := range map[int]time.Duration{0: directory.Refresh, 1_800_000: directory.Refresh,
		3_600_000: 20 * time.Minute, 20_000_000: 6666 * time.Second, 1 << 40: directory.Rarely} {
		if got := directory.RefreshEvery(sessions); got != want {
			t.Errorf("%d sessions are refreshed every %v, want %v", sessions, got, want)
		}
	}
	s := register(t, b.A, session(1, "node-001"))
	for range 3 {
		b.Clock.Advance(directory.Rarely * 3 / 2)
		alive(t, b.A, "node-001")
		online(t, b.B, s)
		renew(t, b.A, s)
	}
}

func testFence(t *testing.T, b Backend) {
	notices := watch(t, b.A, "node-001")
	others := watch(t, b.A, "node-003")
	id := int64(0)
	told(t, notices, func() directory.Notice {
		id++
		older := register(t, b.A, session(id, "node-001"))
		newer := register(t, b.B, session(id, "node-002"))
		if newer.Epoch <= older.Epoch {
			t.Fatalf("epoch %d after %d", newer.Epoch, older.Epoch)
		}
		online(t, b.A, newer)
		if fenced := renew(t, b.A, older); !slices.Equal(fenced, []directory.Session{older}) {
			t.Fatalf("fenced %+v, want %+v", fenced, older)
		}
		online(t, b.A, newer)
		if fenced := renew(t, b.B, newer); len(fenced) != 0 {
			t.Fatalf("the newer is fenced: %+v", fenced)
		}
		return directory.Notice{Kind: directory.Fenced, Session: older}
	})
	beat(t, b.A, "node-001", true)
	older := register(t, b.A, session(100_000, "node-001"))
	register(t, b.B, session(100_000, "node-002"))
	// A node that has missed the notice gets it with the next beat, once.
	want := directory.Notice{Kind: directory.Fenced, Session: older}
	if waiting := beat(t, b.A, "node-001", true); !slices.Equal(waiting, []directory.Notice{want}) {
		t.Errorf("waiting: %+v, want %+v", waiting, want)
	}
	if waiting := beat(t, b.A, "node-001", true); len(waiting) != 0 {
		t.Errorf("told twice: %+v", waiting)
	}
	select {
	case n := <-others:
		t.Errorf("notice for another node: %+v", n)
	case <-time.After(20 * time.Millisecond):
	}
}

func testLateCleanUp(t *testing.T, b Backend) {
	ctx := context.Background()
	for round := range int64(1000) {
		id := round%10 + 1
		a := register(t, b.A, session(id, "node-001"))
		done := make(chan error, 1)
		go func() { done <- b.A.Remove(ctx, a) }() // before, during or after the call of B
		s := register(t, b.B, session(id, "node-002"))
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if err := b.A.Remove(ctx, a); err != nil {
			t.Fatal(err)
		}
		online(t, b.A, s)
	}
}

func testConcurrent(t *testing.T, b Backend) {
	var mu sync.Mutex
	seen := map[directory.Epoch]bool{}
	var working sync.WaitGroup
	for i, d := range []directory.Directory{b.A, b.B, b.A, b.B} {
		working.Go(func() {
			last := directory.Epoch(0)
			for range 100 {
				s := register(t, d, session(7, fmt.Sprintf("node-%03d", i+1)))
				mu.Lock()
				if seen[s.Epoch] || s.Epoch <= last {
					t.Errorf("epoch %d, after %d", s.Epoch, last)
				}
				seen[s.Epoch], last = true, s.Epoch
				mu.Unlock()
			}
		})
	}
	working.Wait()
	highest := directory.Epoch(0)
	for epoch := range seen {
		highest = max(highest, epoch)
	}
	if p := lookup(t, b.A, 7); len(p.Sessions) != 1 || p.Sessions[0].Epoch != highest {
		t.Errorf("the client's sessions are %+v, want one of epoch %d", p.Sessions, highest)
	}
}

func testRemoved(t *testing.T, b Backend) {
	ctx := context.Background()
	s := register(t, b.A, session(7, "node-001"))
	b.Clock.Advance(time.Second)
	for range 2 {
		if err := b.A.Remove(ctx, s); err != nil {
			t.Fatal(err)
		}
	}
	removed := b.Clock.Now()
	if fenced := renew(t, b.A, s); len(fenced) != 0 { // a late renewal
		t.Errorf("fenced: %+v", fenced)
	}
	if p := lookup(t, b.B, 7); p.Online || !p.LastSeen.Equal(removed) {
		t.Errorf("after remove: %+v, want offline, seen %v", p, removed)
	}
	if again := register(t, b.B, session(7, "node-002")); again.Epoch <= s.Epoch {
		t.Errorf("epoch %d after %d", again.Epoch, s.Epoch)
	}
	if err := b.A.Remove(ctx, session(12345, "node-001")); err != nil {
		t.Errorf("remove what is not there: %v", err)
	}
}

func testFlush(t *testing.T, b Backend) {
	if b.Flush == nil {
		return // its flush is the end of its only node
	}
	quiet := register(t, b.A, session(1, "node-001"))
	moved := register(t, b.A, session(2, "node-001"))
	b.Clock.Advance(time.Second)
	b.Flush()
	if p := lookup(t, b.B, 1); p.Online {
		t.Fatalf("after a flush: %+v", p)
	}
	beat(t, b.A, "node-001", false) // the answer tells the node to renew
	beat(t, b.A, "node-002", false)
	newer := register(t, b.B, session(2, "node-002"))
	if newer.Epoch <= moved.Epoch {
		t.Fatalf("epoch %d after a flush, was %d: the old session would fence the new one", newer.Epoch, moved.Epoch)
	}
	if fenced := renew(t, b.A, quiet, moved); !slices.Equal(fenced, []directory.Session{moved}) {
		t.Errorf("fenced %+v, want %+v", fenced, moved)
	}
	online(t, b.B, quiet)
	online(t, b.B, newer)
	if again := register(t, b.B, session(1, "node-002")); again.Epoch <= quiet.Epoch {
		t.Errorf("epoch %d after %d", again.Epoch, quiet.Epoch)
	}
}

func lease(t testing.TB, d directory.Directory, owner string) string {
	t.Helper()
	id, err := d.LeaseID(context.Background(), owner)
	if err != nil {
		t.Fatalf("lease for %s: %v", owner, err)
	}
	return id
}

func testLeaseID(t *testing.T, b Backend) {
	want := func(d directory.Directory, owner, id string) {
		t.Helper()
		if got := lease(t, d, owner); got != id {
			t.Errorf("%s leases %s, want %s", owner, got, id)
		}
	}
	want(b.A, "ann", "node-001")
	want(b.B, "bob", "node-002")
	want(b.B, "cid", "node-003")
	for range 10 {
		b.Clock.Advance(directory.TTL / 2)
		want(b.A, "ann", "node-001")
		want(b.B, "cid", "node-003")
	}
	want(b.B, "dan", "node-004") // not bob's, whose lease has run out: bob may be alive
	want(b.A, "bob", "node-002")
	for range int(directory.IDKept / directory.TTL) {
		b.Clock.Advance(directory.TTL)
		want(b.A, "ann", "node-001")
	}
	b.Clock.Advance(directory.TTL)
	want(b.B, "dan", "node-004") // run out too, but nobody has taken it
	want(b.A, "eve", "node-002") // bob has been away for too long
	want(b.A, "bob", "node-003")
	if b.Flush != nil {
		b.Flush()
		want(b.B, "dan", "node-004") // it asks for what it had
		want(b.A, "fay", "node-001")
	}
}

func testThousandOwners(t *testing.T, b Backend) {
	var mu sync.Mutex
	ids := map[string]string{}
	var working sync.WaitGroup
	for w := range 4 {
		working.Go(func() {
			for n := w; n < directory.MaxNodes; n += 4 {
				owner := fmt.Sprintf("owner %d", n)
				id := lease(t, []directory.Directory{b.A, b.B}[n%2], owner)
				mu.Lock()
				if other, taken := ids[id]; taken {
					t.Errorf("%s leases %s, which %s has", owner, id, other)
				}
				ids[id] = owner
				mu.Unlock()
			}
		})
	}
	working.Wait()
	if len(ids) != directory.MaxNodes || ids["node-001"] == "" || ids["node-1000"] == "" {
		t.Errorf("%d ids", len(ids))
	}
	if _, err := b.A.LeaseID(context.Background(), "one more"); !errors.Is(err, directory.ErrNoFreeID) {
		t.Errorf("one more: %v, want ErrNoFreeID", err)
	}
	b.Clock.Advance(directory.TTL)
	if id := lease(t, b.A, "one more"); id != "node-001" {
		t.Errorf("one more leases %s after all have run out", id)
	}
}

func testContext(t *testing.T, b Backend) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	s := session(7, "node-001")
	_, register := b.A.Register(ctx, s)
	_, beat := b.A.Beat(ctx, "node-001", "run")
	_, renew := b.A.Renew(ctx, []directory.Session{s})
	_, lookup := b.A.Lookup(ctx, 7)
	_, disconnect := b.A.Disconnect(ctx, 7)
	_, lease := b.A.LeaseID(ctx, "ann")
	_, all := nodesOf(b.A).Nodes(ctx)
	_, reserve := b.A.(directory.Portions).Reserve(ctx, directory.Portion{Mapping: 7, Node: "node-001", Run: "run"})
	_, since := b.A.(directory.Portions).Since(ctx)
	for i, err := range []error{reserve, since, register, renew, lookup, lease, b.A.Remove(ctx, s), b.A.Watch(ctx, "node-001", nil),
		disconnect, beat, b.A.RequestDrain(ctx, "node-001"), all, nodesOf(b.A).Announce(ctx, "ann", directory.Node{ID: "node-001"}), nodesOf(b.A).Withdraw(ctx, "ann", "node-001")} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("call %d: %v, want context.Canceled", i, err)
		}
	}
}
