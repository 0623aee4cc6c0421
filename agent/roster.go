package agent

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/tunnox-net/tunnox/transport"
	"github.com/tunnox-net/tunnox/wire/wirepb"
)

const (
	troubleTime = 20 * time.Second // how long a forwarder that failed is tried last
	maxTold     = 64               // most forwarders accepted from one message
	maxTold1    = 300              // most bytes of one forwarder, name and address
)

// roster is the list of places where the agent may have sessions: the addresses in its
// settings (given), and the forwarders that a forwarder named (told). The node name
// identifies a forwarder, not the address: behind a load balancer all forwarders have
// one address.
type roster struct {
	most int // sessions the agent keeps

	mu      sync.Mutex
	given   []string
	told    []forwarder         // the latest list from any forwarder, which names itself too
	led     map[string]string   // by given address: the node that it led to last
	claims  map[*claim]struct{} // the forwarders that are being dialled or are connected
	trouble map[forwarder]trouble
	changed chan struct{} // closed and replaced when there may be more to claim
}

// forwarder is one place to connect to. node is "" while it is not known.
type forwarder struct{ node, address string }

// trouble counts the recent failures of a forwarder.
type trouble struct {
	times int
	last  time.Time
}

// claim is a forwarder that one session uses.
type claim struct {
	forwarder
	wanted forwarder // the entry of the roster, before the node was known
}

func newRoster(given []string, most int) *roster {
	return &roster{most: most, given: given, led: map[string]string{}, claims: map[*claim]struct{}{},
		trouble: map[forwarder]trouble{}, changed: make(chan struct{})}
}

// tell replaces the list of forwarders by one that a forwarder sent.
func (r *roster) tell(forwarders []*wirepb.Forwarder) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.told = nil
	for _, f := range forwarders[:min(len(forwarders), maxTold)] {
		if f.GetNode() == "" || len(f.GetNode())+len(f.GetAddress()) > maxTold1 ||
			slices.Contains(r.told, forwarder{f.GetNode(), f.GetAddress()}) {
			continue
		}
		r.told = append(r.told, forwarder{f.GetNode(), f.GetAddress()})
	}
	r.wake()
}

// nodes returns the node names of the latest list of forwarders.
func (r *roster) nodes() (names []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range r.told {
		names = append(names, f.node)
	}
	return names
}

// wake tells those who wait for a claim to look again. mu is held.
func (r *roster) wake() {
	close(r.changed)
	r.changed = make(chan struct{})
}

// wants returns how many sessions there should be: as many as the agent keeps, but
// not more than there are nodes, and at least one. mu is held.
func (r *roster) wants() int {
	nodes := map[string]struct{}{}
	for _, f := range r.told {
		nodes[f.node] = struct{}{}
	}
	return max(1, min(r.most, len(nodes)))
}

// claim waits until the slot should have a session and a forwarder is free, and claims
// that forwarder. It returns nil when ctx ends.
func (r *roster) claim(ctx context.Context, slot int) *claim {
	for {
		r.mu.Lock()
		changed := r.changed
		if slot < r.wants() {
			if free := r.free(time.Now()); len(free) > 0 {
				c := &claim{free[0], free[0]}
				r.claims[c] = struct{}{}
				r.mu.Unlock()
				return c
			}
		}
		r.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// another claims a free forwarder without trouble. It returns nil if there is none.
func (r *roster) another() *claim {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	free := r.free(now)
	if len(free) == 0 || r.troubles(free[0], now) > 0 {
		return nil
	}
	c := &claim{free[0], free[0]}
	r.claims[c] = struct{}{}
	return c
}

// giveBack gives a claim back that was not used: this is no failure of the forwarder.
func (r *roster) giveBack(c *claim) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.claims, c)
	r.wake()
}

// free lists the forwarders that no session uses, the best first. Forwarders without
// trouble come first. Among equals the told ones come before the given ones; without
// any session or attempt it is the other way round. mu is held.
func (r *roster) free(now time.Time) []forwarder {
	taken := func(f forwarder) bool {
		for c := range r.claims {
			if f.node != "" && f.node == c.node || (f.node == "" || c.node == "") && f.address == c.wanted.address {
				return true
			}
		}
		return false
	}
	var given, told []forwarder
	for _, address := range r.given {
		given = append(given, forwarder{r.led[address], address})
	}
	for _, f := range r.told {
		if _, err := transport.ParseAddress(f.address); err == nil {
			told = append(told, f)
		}
	}
	all := append(told, given...)
	if len(r.claims) == 0 {
		all = append(given, told...)
	}
	var free []forwarder
	for _, f := range all {
		if !taken(f) && !slices.Contains(free, f) {
			free = append(free, f)
		}
	}
	slices.SortStableFunc(free, func(a, b forwarder) int { return cmp.Compare(r.troubles(a, now), r.troubles(b, now)) })
	return free
}

// troubles returns the number of recent failures of a forwarder. mu is held.
func (r *roster) troubles(f forwarder, now time.Time) int {
	if t := r.trouble[f]; now.Sub(t.last) < troubleTime {
		return t.times
	}
	return 0
}

// welcomed records the node that a claim has led to.
func (r *roster) welcomed(c *claim, node string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c.node = node
	delete(r.trouble, c.wanted)
	if slices.Contains(r.given, c.wanted.address) {
		delete(r.trouble, forwarder{r.led[c.wanted.address], c.wanted.address})
		r.led[c.wanted.address] = node
	}
	r.wake()
}

// release gives a claim back. The end of a session counts as a failure of the
// forwarder, whatever the reason was: for troubleTime other forwarders come first.
func (r *roster) release(c *claim) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.claims, c)
	now := time.Now()
	for _, f := range []forwarder{c.wanted, c.forwarder, {r.led[c.wanted.address], c.wanted.address}} {
		t := r.trouble[f]
		if t.last == now {
			continue // counted in this loop already
		}
		if now.Sub(t.last) >= troubleTime {
			t.times = 0
		}
		r.trouble[f] = trouble{t.times + 1, now}
	}
	for f, t := range r.trouble {
		if now.Sub(t.last) >= troubleTime {
			delete(r.trouble, f)
		}
	}
	r.wake()
}

// fresh tells whether a forwarder without trouble is free. The channel is closed when
// the answer may have changed.
func (r *roster) fresh() (yes bool, changed <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	free := r.free(now)
	return len(free) > 0 && r.troubles(free[0], now) == 0, r.changed
}
