package seal

import (
	"container/list"
	"sync"
)

const (
	// replayWindow is how far behind a peer's highest counter another may come: streams
	// overtake each other on the way, in several sessions.
	replayWindow = 4096
	// replayPeers bounds the peers that are remembered: 4096 of 600 bytes.
	replayPeers = 4096
)

// replays remembers which counters of which peers have been seen. It forgets the peer
// that has been silent for longest when there are too many.
type replays struct {
	mu    sync.Mutex
	peers map[PublicKey]*list.Element
	order list.List // of *seen, the latest first
	floor uint64    // the highest counter of peers that were forgotten
}

// seen is what is known of one peer.
type seen struct {
	peer    PublicKey
	highest uint64
	bits    [replayWindow / 64]uint64 // of highest and those before it, by counter modulo the window
}

// fresh reports whether a counter of a peer is one that has not been seen, and notes it.
// If not, least is one that would be.
func (r *replays) fresh(peer PublicKey, counter uint64) (least uint64, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	at, known := r.peers[peer]
	if !known {
		floor, last := r.floor, r.order.Back()
		full := len(r.peers) >= replayPeers
		if full { // the peer that was silent for longest makes room
			floor = max(floor, last.Value.(*seen).highest)
		}
		if counter <= floor {
			return floor + 1, false // it may be one of a peer that was forgotten
		}
		if full {
			delete(r.peers, r.order.Remove(last).(*seen).peer)
			r.floor = floor
		}
		if r.peers == nil {
			r.peers = map[PublicKey]*list.Element{}
		}
		s := &seen{peer: peer, highest: r.floor}
		for i := range s.bits { // nothing up to the floor is new
			s.bits[i] = ^uint64(0)
		}
		at = r.order.PushFront(s)
		r.peers[peer] = at
	}
	s := at.Value.(*seen)
	if !s.take(counter) {
		return s.highest + 1, false
	}
	r.order.MoveToFront(at)
	return 0, true
}

// take reports whether the counter is new, and notes it.
func (s *seen) take(counter uint64) bool {
	switch {
	case counter > s.highest:
		for n := min(counter-s.highest, replayWindow); n > 0; n-- {
			s.mark(counter-n+1, false)
		}
		s.highest = counter
	case s.highest-counter >= replayWindow, s.marked(counter):
		return false
	}
	s.mark(counter, true)
	return true
}

func (s *seen) marked(counter uint64) bool {
	i := counter % replayWindow
	return s.bits[i/64]&(1<<(i%64)) != 0
}

func (s *seen) mark(counter uint64, on bool) {
	i := counter % replayWindow
	if on {
		s.bits[i/64] |= 1 << (i % 64)
	} else {
		s.bits[i/64] &^= 1 << (i % 64)
	}
}
