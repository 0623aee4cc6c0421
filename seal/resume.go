package seal

import (
	"container/list"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Two agents that have just had a handshake can make the keys of further streams of what
// they share, without curves: a first and a second message with an authenticator each. That
// costs a fiftieth. It holds for a short time, so that there are fresh keys of curves often,
// and for one direction: the initiator stays the initiator.
const (
	// resumed is the first byte of such messages, where a handshake has its Version.
	resumed = 2

	keepFor     = time.Minute // an initiator goes on with what it shares for so long
	keepGrace   = time.Minute // a responder for so much longer: messages take time
	maxKept     = 4096        // with all peers, at each end
	maxKeptEach = 8           // with one peer: several first streams may begin together

	keptID     = 16
	proofSize  = 16
	againFirst = 1 + keptID + 8 + 16 + proofSize // resumed, id, counter, random, tag
	againNext  = 1 + 32 + proofSize              // resumed, random, tag
)

// ErrForgotten, which is an ErrHandshake: the peer goes on with what this end does not know
// any more. The peer makes a whole handshake then.
var ErrForgotten = fmt.Errorf("%w: what it goes on with has been forgotten here", ErrHandshake)

// kept is what two agents share after a handshake.
type kept struct {
	id      [keptID]byte
	proof   []byte // authenticates the messages
	secret  []byte // of which keys are made
	peer    PublicKey
	aes     bool
	until   time.Time
	counter atomic.Uint64 // of the initiator
	seen    *seen         // of the responder; guarded by shelf.mu
}

// keptOf derives it from the master secret of a handshake.
func keptOf(master []byte, peer PublicKey, aes bool, until time.Time) (*kept, error) {
	k := &kept{peer: peer, aes: aes, until: until}
	base, err := hkdf.Expand(sha256.New, master, "tunnox seal resume", sha256.Size)
	if err != nil {
		return nil, fmt.Errorf("derive: %w", err)
	}
	for _, part := range []struct {
		label string
		size  int
		to    func([]byte)
	}{
		{"tunnox seal resume id", keptID, func(b []byte) { copy(k.id[:], b) }},
		{"tunnox seal resume proof", 32, func(b []byte) { k.proof = b }},
		{"tunnox seal resume keys", 32, func(b []byte) { k.secret = b }},
	} {
		b, err := hkdf.Expand(sha256.New, base, part.label, part.size)
		if err != nil {
			return nil, fmt.Errorf("derive: %w", err)
		}
		part.to(b)
	}
	return k, nil
}

// tag authenticates parts under a label.
func (k *kept) tag(label string, parts ...[]byte) []byte {
	mac := hmac.New(sha256.New, k.proof)
	mac.Write([]byte(label))
	for _, part := range parts {
		mac.Write(binary.BigEndian.AppendUint32(nil, uint32(len(part))))
		mac.Write(part)
	}
	return mac.Sum(nil)[:proofSize]
}

// secrets makes the keys of a stream from both messages without the second one's tag.
func (k *kept) secrets(prologue, first, answer []byte, initiator bool) (*Secrets, error) {
	salt := sha256.New()
	for _, part := range [][]byte{prologue, first, answer} {
		salt.Write(binary.BigEndian.AppendUint32(nil, uint32(len(part))))
		salt.Write(part)
	}
	master, err := hkdf.Extract(sha256.New, k.secret, salt.Sum(nil))
	if err != nil {
		return nil, fmt.Errorf("derive: %w", err)
	}
	return expand(master, k.aes, initiator)
}

// again begins another stream with a peer.
func (k *kept) again(prologue []byte) (first []byte) {
	first = make([]byte, 0, againFirst)
	first = append(first, resumed)
	first = append(first, k.id[:]...)
	first = binary.BigEndian.AppendUint64(first, k.counter.Add(1))
	first = first[:againFirst-proofSize]
	rand.Read(first[againFirst-proofSize-16:]) // never fails
	return append(first, k.tag("first", prologue, first)...)
}

// finishAgain takes the responder's message.
func (k *kept) finishAgain(prologue, first, answer []byte) (*Secrets, error) {
	if len(answer) != againNext || answer[0] != resumed {
		return nil, ErrHandshake
	}
	body, tag := answer[:againNext-proofSize], answer[againNext-proofSize:]
	if !hmac.Equal(tag, k.tag("answer", prologue, first, body)) {
		return nil, ErrHandshake
	}
	return k.secrets(prologue, first, body, true)
}

// answerAgain makes the responder's message.
func (k *kept) answerAgain(prologue, first []byte) (answer []byte, s *Secrets, err error) {
	answer = append(make([]byte, 0, againNext), resumed)
	answer = answer[:againNext-proofSize]
	rand.Read(answer[1:]) // never fails
	if s, err = k.secrets(prologue, first, answer, false); err != nil {
		return nil, nil, err
	}
	return append(answer, k.tag("answer", prologue, first, answer)...), s, nil
}

// respondAgain takes the initiator's message, if this end still shares something with it.
func (p *Party) respondAgain(first []byte, terms Terms, trust func(PublicKey) error) (*Response, error) {
	if len(first) != againFirst {
		return nil, ErrHandshake
	}
	k := p.answered.find([keptID]byte(first[1:]))
	if k == nil {
		return nil, ErrForgotten
	}
	prologue := terms.prologue()
	body, tag := first[:againFirst-proofSize], first[againFirst-proofSize:]
	if !hmac.Equal(tag, k.tag("first", prologue, body)) {
		return nil, ErrHandshake
	}
	if err := trust(k.peer); err != nil { // another key may count by now
		return nil, err
	}
	if !p.answered.fresh(k, binary.BigEndian.Uint64(first[1+keptID:])) {
		return nil, Replayed{}
	}
	return &Response{Peer: k.peer, kept: k, prologue: prologue, first: first}, nil
}

// shelf holds what is shared, by id and by peer, until its time is over. The zero value is
// ready.
type shelf struct {
	mu    sync.Mutex
	byID  map[[keptID]byte]*list.Element // guarded by mu
	peers map[PublicKey][]*list.Element  // guarded by mu; the newest last
	order list.List                      // of *kept, the oldest first; guarded by mu
}

// add puts something on the shelf. The oldest makes room, of the same peer first.
func (s *shelf) add(k *kept) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byID == nil {
		s.byID, s.peers = map[[keptID]byte]*list.Element{}, map[PublicKey][]*list.Element{}
	}
	for e := s.order.Front(); e != nil && (s.order.Len() >= maxKept || time.Now().After(e.Value.(*kept).until)); e = s.order.Front() {
		s.remove(e)
	}
	if of := s.peers[k.peer]; len(of) >= maxKeptEach {
		s.remove(of[0])
	}
	e := s.order.PushBack(k)
	s.byID[k.id] = e
	s.peers[k.peer] = append(s.peers[k.peer], e)
}

func (s *shelf) remove(e *list.Element) {
	k := s.order.Remove(e).(*kept)
	delete(s.byID, k.id)
	of := s.peers[k.peer]
	for i := range of {
		if of[i] == e {
			of = append(of[:i:i], of[i+1:]...)
			break
		}
	}
	if len(of) == 0 {
		delete(s.peers, k.peer)
		return
	}
	s.peers[k.peer] = of
}

func (s *shelf) find(id [keptID]byte) *kept {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.byID[id]; e != nil && time.Now().Before(e.Value.(*kept).until) {
		return e.Value.(*kept)
	}
	return nil
}

// with gives the newest that is shared with a peer, nil if there is none.
func (s *shelf) with(peer PublicKey) *kept {
	s.mu.Lock()
	defer s.mu.Unlock()
	of := s.peers[peer]
	if len(of) == 0 {
		return nil
	}
	k := of[len(of)-1].Value.(*kept)
	if time.Now().After(k.until) {
		return nil
	}
	return k
}

// drop takes one away.
func (s *shelf) drop(k *kept) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.byID[k.id]; e != nil {
		s.remove(e)
	}
}

// fresh reports whether a counter was not seen yet, and notes it.
func (s *shelf) fresh(k *kept, counter uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k.seen == nil {
		k.seen = &seen{}
	}
	return counter > 0 && k.seen.take(counter)
}
