package forwarder_test

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/test/pace"
	"github.com/tunnox-net/tunnox/transport"
	"github.com/tunnox-net/tunnox/wire"
	"github.com/tunnox-net/tunnox/wire/wirepb"
)

// everywhere is a source agent, made by hand, with a session at every forwarder, that
// opens streams wherever it likes.
type everywhere struct {
	*cluster
	user   int64
	m      mapping
	links  map[string]transport.Session
	mu     sync.Mutex
	opened map[string][]transport.Stream // guarded by mu; by node
}

// limited gives an account a limit of connections, or none when it is negative, and
// waits until all forwarders know it.
func (e *everywhere) limited(limit int64) {
	e.t.Helper()
	var limits domain.Limits
	if limit >= 0 {
		limits.MaxConnectionsPerMapping = &limit
	}
	at := e.plane.do(e.t, domain.SetQuota{ID: e.user, Limits: limits})
	for _, node := range nodeIDs {
		eventually(e.t, node+" knows the limit", func() bool {
			return number(e.t, e.member(node).metrics, "tunnox_forwarder_position", "") >= float64(at)
		})
	}
}

func newEverywhere(t *testing.T, limits domain.Limits) *everywhere {
	c := newCluster(t, "memory")
	e := &everywhere{cluster: c, user: c.newUser(limits), links: map[string]transport.Session{}, opened: map[string][]transport.Stream{}}
	source, target := c.client(e.user), c.client(e.user)
	c.agent(target, c.at("node-00b"))
	e.m = c.mapping(source, target, echo(t))
	for _, id := range nodeIDs {
		link, err := c.dialNode(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if refusal := knockAt(t, link).hello(t, source.credential, hello(source)); refusal != nil {
			t.Fatal(refusal)
		}
		e.links[id] = link
	}
	t.Cleanup(e.close)
	return e
}

// open opens a stream at a node, and keeps it.
func (e *everywhere) open(node string) error {
	stream, err := e.links[node].Open(e.t.(*testing.T).Context())
	if err != nil {
		return err
	}
	stream.SetDeadline(time.Now().Add(pace.Guard))
	if err = wire.WriteOpen(stream, &wirepb.Open{MappingId: e.m.id}); err == nil {
		err = wire.ReadOpened(stream)
	}
	if err != nil {
		stream.Close()
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.opened[node] = append(e.opened[node], stream)
	return nil
}

// openMany opens so many at each of the nodes at the same moment, and counts those
// that were accepted. The rest must have been refused for the limit.
func (e *everywhere) openMany(each int, nodes ...string) (accepted int) {
	e.t.Helper()
	answers := make(chan error)
	for _, node := range nodes {
		for range each {
			go func() { answers <- e.open(node) }()
		}
	}
	for range each * len(nodes) {
		switch err := <-answers; {
		case err == nil:
			accepted++
		case !errors.Is(err, wire.QuotaConnections):
			e.t.Errorf("refused with %v", err)
		}
	}
	return accepted
}

// close ends the streams that are open.
func (e *everywhere) close() { e.closeAt(nodeIDs...) }

func (e *everywhere) closeAt(nodes ...string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, node := range nodes {
		for _, stream := range e.opened[node] {
			stream.Close()
		}
		delete(e.opened, node)
	}
}

func (e *everywhere) live() (n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, streams := range e.opened {
		n += len(streams)
	}
	return n
}

// fill opens streams at a node until so many are open in all; never more.
func (e *everywhere) fill(node string, want int) {
	e.t.Helper()
	eventually(e.t, fmt.Sprintf("%d connections are open", want), func() bool {
		if e.live() < want {
			_ = e.open(node)
		}
		return e.live() == want
	})
	if err := e.open(node); !errors.Is(err, wire.QuotaConnections) {
		e.t.Fatalf("one more than %d: %v", want, err)
	}
}

// However many connections begin at however many forwarders at once, the limit is
// kept exactly, and what is closed at one can be opened at another.
func TestLimitIsExactOverForwarders(t *testing.T) {
	t.Parallel()
	e := newEverywhere(t, domain.Limits{MaxConnectionsPerMapping: ptr(int64(10))})
	for round := range 5 {
		if n := e.openMany(20, nodeIDs...); n != 10 {
			t.Fatalf("round %d: %d of 60 were accepted, want 10", round, n)
		}
		e.close()
		began := time.Now()
		e.fill(nodeIDs[round%3], 10)
		t.Logf("round %d: 10 again through another after %v", round, time.Since(began))
		e.closeAt(nodeIDs[round%3])
	}
}

// A lower limit holds for new connections at once, a higher one lets more through,
// and connections from before there was a limit count.
func TestLimitOverForwardersFollowsTheQuota(t *testing.T) {
	t.Parallel()
	e := newEverywhere(t, domain.Limits{})
	if n := e.openMany(4, nodeIDs...); n != 12 {
		t.Fatalf("%d of 12 were accepted without a limit", n)
	}
	e.limited(12)
	for _, node := range nodeIDs {
		eventually(t, node+" has told of those from before", func() bool {
			return number(t, e.member(node).metrics, "tunnox_connection_shares_total", "granted") > 0
		})
	}
	if n := e.openMany(3, nodeIDs...); n > 0 {
		t.Errorf("%d more were accepted than the 12 from before", n)
	}
	e.limited(15)
	e.fill("node-00c", 15)
	e.closeAt("node-00a", "node-00b")
	e.limited(8) // 7 are open
	eventually(t, "8 are open and no more", func() bool {
		if e.live() > 8 {
			t.Fatalf("%d are open", e.live())
		}
		return e.open("node-00a") != nil && e.live() == 8
	})
	e.limited(-1)
	eventually(t, "without a limit", func() bool { return e.open("node-00b") == nil && e.live() > 12 })
}

// Without the directory each forwarder goes on with an even part or what it holds,
// and when it is back the limit is exact again.
func TestLimitWithoutTheDirectory(t *testing.T) {
	t.Parallel()
	e := newEverywhere(t, domain.Limits{MaxConnectionsPerMapping: ptr(int64(9))})
	e.presences.away(true)
	for _, node := range nodeIDs {
		eventually(t, node+" knows the others and takes a third of 9", func() bool {
			n := e.openMany(9, node)
			if n != 3 {
				e.closeAt(node)
			}
			return n == 3
		})
		if err := e.open(node); !errors.Is(err, wire.QuotaConnections) {
			t.Errorf("one more at %s: %v", node, err)
		}
	}
	e.close()
	e.presences.away(false)
	e.fill("node-00b", 9)
	e.presences.away(true)
	e.closeAt("node-00b")
	eventually(t, "they have ended", func() bool { _, streams := e.member("node-00b").Load(); return streams == 0 })
	if n := e.openMany(12, "node-00b"); n != 9 {
		t.Errorf("with what it holds it takes %d, want 9", n)
	}
	if n := e.openMany(12, "node-00a"); n > 3 {
		t.Errorf("another takes %d, want a third at most", n)
	}
	e.close()
	e.presences.away(false)
	e.fill("node-00c", 9)
}

// A forwarder that ends gives back what it holds at once.
func TestForwarderThatEndsGivesBack(t *testing.T) {
	t.Parallel()
	e := newEverywhere(t, domain.Limits{MaxConnectionsPerMapping: ptr(int64(6))})
	if n := e.openMany(6, "node-00c"); n != 6 {
		t.Fatalf("%d of 6", n)
	}
	e.mu.Lock()
	streams := slices.Clone(e.opened["node-00c"])
	delete(e.opened, "node-00c")
	e.mu.Unlock()
	e.member("node-00c").stop()
	for _, stream := range streams {
		stream.Close()
	}
	if n := e.openMany(6, "node-00a"); n != 6 {
		t.Errorf("after the other has ended: %d of 6", n)
	}
}
