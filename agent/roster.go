package agent

import (
	"cmp"
	"context"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tunnox-net/tunnox/wire/wirepb"
)

const (
	troubleTime = 20 * time.Second // a forwarder that failed comes last for so long
	maxTold     = 64               // forwarders that are taken from one message
	maxTold1    = 300              // bytes of one of them
)

// roster is where the agent may have sessions: the addresses it was given, and the
// forwarders it was told about. Forwarders are told apart by the names of their
// nodes; behind a balancer they all have one address.
type roster struct {
	most int // sessions the agent keeps

	mu      sync.Mutex
	given   []string
	told    []forwarder         // by the last word of any forwarder, itself among them
	led     map[string]string   // the node that a given address led to last
	claims  map[*claim]struct{} // what is dialled or connected
	trouble map[forwarder]trouble
	changed chan struct{} // closed and made anew when there may be more to claim
}

// forwarder is one place to connect to; node is "" when nobody knows it yet.
type forwarder struct{ node, address string }

// trouble is what happened to a forwarder lately.
type trouble struct {
	times int
	last  time.Time
}

// claim is a forwarder that one session is for.
type claim struct {
	forwarder
	wanted forwarder // as it was in the roster
}

func newRoster(given []string, most int) *roster {
	return &roster{most: most, given: given, led: map[string]string{}, claims: map[*claim]struct{}{},
		trouble: map[forwarder]trouble{}, changed: make(chan struct{})}
}

// tell takes over where a forwarder says that sessions may be.
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

// nodes names the forwarders that the agent was told of last.
func (r *roster) nodes() (names []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range r.told {
		names = append(names, f.node)
	}
	return names
}

// wake needs mu.
func (r *roster) wake() {
	close(r.changed)
	r.changed = make(chan struct{})
}

// wants gives how many sessions there should be: as many as the agent keeps, but
// not more than there are nodes. It needs mu.
func (r *roster) wants() int {
	nodes := map[string]struct{}{}
	for _, f := range r.told {
		nodes[f.node] = struct{}{}
	}
	return max(1, min(r.most, len(nodes)))
}

// claim waits until there should be a session for the slot and a forwarder is
// free, and claims it. It gives nil when ctx ends.
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

// free lists the forwarders that no session is for, the best first: those without
// trouble, and while there is no session at all those that the agent was given
// before those it was told about. It needs mu.
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
		if _, _, err := net.SplitHostPort(f.address); err == nil && !strings.HasPrefix(f.address, ":") {
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

// troubles counts what happened to a forwarder lately. It needs mu.
func (r *roster) troubles(f forwarder, now time.Time) int {
	if t := r.trouble[f]; now.Sub(t.last) < troubleTime {
		return t.times
	}
	return 0
}

// welcomed notes the node that a claim has led to.
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

// release gives a claim back. A forwarder that was left in trouble, whatever it
// was, comes after the others for a while.
func (r *roster) release(c *claim) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.claims, c)
	now := time.Now()
	for _, f := range []forwarder{c.wanted, c.forwarder, {r.led[c.wanted.address], c.wanted.address}} {
		t := r.trouble[f]
		if t.last == now {
			continue // the same one
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

// fresh tells whether a forwarder without trouble is free, and gives what is
// closed when that may have changed.
func (r *roster) fresh() (yes bool, changed <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	free := r.free(now)
	return len(free) > 0 && r.troubles(free[0], now) == 0, r.changed
}
