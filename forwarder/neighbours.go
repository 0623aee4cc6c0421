package forwarder

import (
	"cmp"
	"context"
	"encoding/binary"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/tunnox-net/tunnox/directory"
	"github.com/tunnox-net/tunnox/wait"
	"github.com/tunnox-net/tunnox/wire/wirepb"
)

const (
	surveyEvery = 4 * time.Second // how often the nodes are read
	maxOffered  = 8               // how many other forwarders an agent is told
	maxAddress  = 256             // of one address; longer ones are not told: Welcome has a limit
)

// neighbours are the forwarders to which agents may connect, as the directory last knew
// them.
type neighbours struct {
	self string

	mu     sync.Mutex
	own    directory.Node // this one
	others []directory.Node
}

// survey reads the nodes at intervals. A directory that fails or has lost all of them
// changes nothing: agents should not leave because of that.
func (f *Forwarder) survey(ctx context.Context) {
	var pause wait.Backoff
	mark := ""
	for {
		nodes, now, err := f.places.survey(ctx, mark)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			f.log.Warn("cannot read the list of forwarders, trying again", "error", err)
			pause.Wait(ctx)
			continue
		case f.neighbours.learn(nodes):
			for _, s := range f.routes.sessions() {
				s.configure(time.Time{})
			}
		}
		mark = now
		pause.Reset()
		if !wait.For(ctx, surveyEvery*3/4+rand.N(surveyEvery/4)) {
			return
		}
	}
}

// learn stores the directory's answer, and reports whether agents must be told.
func (n *neighbours) learn(nodes []directory.Node) (changed bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	own := n.own
	var others []directory.Node
	for _, node := range nodes {
		switch {
		case node.ID == n.self:
			own = node
		case node.State == directory.NodeActive && node.Agents != "" && len(node.Agents)+len(node.ID) <= maxAddress:
			if len(node.Agents)+len(node.Also)+len(node.Addresses())*len(node.ID) > maxAddress {
				node.Also = ""
			}
			others = append(others, node)
		}
	}
	if len(nodes) == 0 {
		return false // not even this node is there: the directory has lost them and will have them again
	}
	same := func(a, b directory.Node) bool { return a.ID == b.ID && a.Agents == b.Agents && a.Also == b.Also }
	changed = !same(own, n.own) || !slices.EqualFunc(others, n.others, same)
	n.own, n.others = own, others
	return changed
}

// elsewhere reports whether agents have another node.
func (n *neighbours) elsewhere() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.others) > 0
}

// count gives the number of nodes, this one included.
func (n *neighbours) count() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return 1 + len(n.others)
}

// offer gives the forwarders at which a client's agent may have sessions: this one and
// then some others. The order differs from client to client, so that agents that lose a
// node spread over the others. It is nil when there are no others.
func (n *neighbours) offer(client int64) []*wirepb.Forwarder {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.others) == 0 {
		return nil
	}
	others := slices.Clone(n.others)
	slices.SortFunc(others, func(a, b directory.Node) int {
		return cmp.Or(cmp.Compare(rank(client, b.ID), rank(client, a.ID)), cmp.Compare(a.ID, b.ID))
	})
	var offer []*wirepb.Forwarder
	add := func(id string, node directory.Node) {
		for _, address := range node.Addresses() {
			offer = append(offer, &wirepb.Forwarder{Node: id, Address: address})
		}
	}
	add(n.self, n.own)
	for _, node := range others[:min(len(others), maxOffered)] {
		add(node.ID, node)
	}
	return offer
}

// rank orders nodes for a client. A node that comes or leaves does not change the order
// of the others.
func rank(client int64, node string) uint64 {
	h := fnv.New64a()
	var id [8]byte
	binary.BigEndian.PutUint64(id[:], uint64(client))
	h.Write(id[:])
	h.Write([]byte(node))
	// FNV alone gives close values for names that differ only in their last letter.
	x := h.Sum64()
	x ^= x >> 32
	x *= 0x9e3779b97f4a7c15
	return x ^ x>>29
}
