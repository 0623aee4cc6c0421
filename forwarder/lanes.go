package forwarder

import (
	"context"
	"crypto/rand"
	"sync"
	"time"

	"github.com/tunnox-net/tunnox/transport"
	"github.com/tunnox-net/tunnox/wire"
)

// carriesLane says that an agent has lanes: connections beside its session that this
// forwarder can join in the kernel. They are for streams that are encrypted from end to
// end, because nothing else encrypts what is on a lane.
const carriesLane = "lane-1"

const (
	lanesParked  = 16               // of one session
	lanesInAll   = 4096             // parked at this forwarder
	laneIdle     = 5 * time.Minute  // how long a lane is parked; agents give theirs up before
	laneGreeting = 10 * time.Second // for the messages of a lane
)

// parking knows the sessions that have lanes, and counts the lanes that are parked.
type parking struct {
	mu       sync.Mutex
	open     bool // somebody brings lanes; guarded by mu, like the next
	sessions map[string]*session
	count    int
}

func newParking() *parking { return &parking{sessions: map[string]*session{}} }

// takeLanes has the lanes of an acceptor brought here, if it has lanes.
func (f *Forwarder) takeLanes(from Acceptor) {
	if l, ok := from.(interface {
		OnLane(do func(*transport.LaneCall))
	}); ok {
		f.parking.mu.Lock()
		f.parking.open = true
		f.parking.mu.Unlock()
		l.OnLane(f.serveLane)
	}
}

// admit gives a session the key for its lanes; nil if it can have none.
func (p *parking) admit(s *session) []byte {
	s.lanes.mu.Lock() // before parking's
	defer s.lanes.mu.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.open || s.lanes.closed || !s.carries.has(carriesLane) || !s.carries.has(carriesSeal) {
		return nil
	}
	key := make([]byte, wire.LaneKeySize)
	_, _ = rand.Read(key) // never fails
	s.lanes.key = key
	p.sessions[s.id] = s
	return key
}

// session gives a session and its key.
func (p *parking) session(id string) (*session, []byte) {
	p.mu.Lock()
	s := p.sessions[id]
	p.mu.Unlock()
	if s == nil {
		return nil, nil
	}
	s.lanes.mu.Lock()
	defer s.lanes.mu.Unlock()
	return s, s.lanes.key
}

// enter counts one more parked lane. It reports false when there are too many.
func (p *parking) enter() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.count >= lanesInAll {
		return false
	}
	p.count++
	return true
}

func (p *parking) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.count--
}

// parked counts the lanes that wait.
func (p *parking) parked() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.count
}

// lanes are what a session has beside its streams.
type lanes struct {
	mu      sync.Mutex
	key     []byte // nil: the session has none; guarded by mu, like the next
	closed  bool
	last    uint64
	parked  map[uint64]*parkedLane
	tickets map[uint64]*forward // streams of this source agent that may be promoted
}

// parkedLane is a lane that waits for a stream. lane is nil when it came to nothing; it may
// be looked at when ready is closed.
type parkedLane struct {
	ready chan struct{}
	lane  *transport.Lane
	timer *time.Timer
}

// serveLane parks a lane that proves to be of a session's agent.
func (f *Forwarder) serveLane(call *transport.LaneCall) {
	defer f.survive()
	_ = call.SetDeadline(time.Now().Add(laneGreeting))
	hello, err := wire.ReadLaneHello(call)
	if err != nil {
		f.metrics.lanes.WithLabelValues("refused").Inc()
		_ = call.Close()
		return
	}
	s, key := f.parking.session(hello.GetSession())
	if !wire.VerifyLane(key, call.Binding(), hello.GetProof()) { // an unknown session has no key
		f.refuseLane(call, wire.BadCredential)
		return
	}
	id, place := s.reserve()
	if place == nil {
		f.refuseLane(call, wire.LaneUnavailable)
		return
	}
	defer close(place.ready) // after this there is a lane, or there is none
	call.Admit()
	err = wire.WriteLaneParked(call, id, nil)
	if err == nil {
		place.lane, err = call.Bare()
	}
	if err != nil {
		_ = call.Close()
		place.lane = nil
		s.drop(id)
		f.metrics.lanes.WithLabelValues("refused").Inc()
		return
	}
	f.metrics.lanes.WithLabelValues("parked").Inc()
}

func (f *Forwarder) refuseLane(call *transport.LaneCall, code wire.Code) {
	f.metrics.lanes.WithLabelValues("refused").Inc()
	_ = wire.WriteLaneParked(call, 0, code)
	_ = call.Close()
}

// reserve makes a place for a lane; nil if there is none.
func (s *session) reserve() (id uint64, place *parkedLane) {
	l := &s.lanes
	s.sweep()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || len(l.parked) >= lanesParked || !s.f.parking.enter() {
		return 0, nil
	}
	if l.parked == nil {
		l.parked = map[uint64]*parkedLane{}
	}
	l.last++
	id = l.last
	place = &parkedLane{ready: make(chan struct{})}
	place.timer = time.AfterFunc(laneIdle, func() { s.drop(id) })
	l.parked[id] = place
	return id, place
}

// sweep drops lanes that their agent has closed, if there is no place for more.
func (s *session) sweep() {
	s.lanes.mu.Lock()
	var dead []uint64
	if len(s.lanes.parked) >= lanesParked {
		for id, place := range s.lanes.parked {
			select {
			case <-place.ready:
				if place.lane == nil || !place.lane.Quiet() {
					dead = append(dead, id)
				}
			default:
			}
		}
	}
	s.lanes.mu.Unlock()
	for _, id := range dead {
		s.drop(id)
	}
}

// remove takes a place away; nil if there is none.
func (s *session) remove(id uint64) *parkedLane {
	s.lanes.mu.Lock()
	defer s.lanes.mu.Unlock()
	place := s.lanes.parked[id]
	if place != nil {
		delete(s.lanes.parked, id)
		place.timer.Stop()
		s.f.parking.leave()
	}
	return place
}

// drop closes a lane that waits.
func (s *session) drop(id uint64) { s.remove(id).close() }

func (p *parkedLane) close() {
	if p == nil {
		return
	}
	go func() { // it may not be ready
		<-p.ready
		if p.lane != nil {
			_ = p.lane.Reset()
		}
	}()
}

// takeLane gives a lane of this session, which the caller then owns.
func (s *session) takeLane(ctx context.Context, id uint64) (*transport.Lane, error) {
	place := s.remove(id)
	if place == nil {
		return nil, wire.LaneUnavailable
	}
	select {
	case <-place.ready:
	case <-ctx.Done():
		place.close()
		return nil, wire.LaneUnavailable
	}
	switch {
	case place.lane == nil:
		return nil, wire.LaneUnavailable
	case !place.lane.Quiet(): // it has died, or sends what nobody has asked for
		_ = place.lane.Reset()
		return nil, wire.LaneUnavailable
	}
	return place.lane, nil
}

// hasLanes tells whether the session can have lanes.
func (s *session) hasLanes() bool {
	s.lanes.mu.Lock()
	defer s.lanes.mu.Unlock()
	return s.lanes.key != nil && !s.lanes.closed
}

// closeLanes ends the lanes that wait. There are none any more after that.
func (s *session) closeLanes() {
	s.lanes.mu.Lock()
	s.lanes.closed = true
	ids := make([]uint64, 0, len(s.lanes.parked))
	for id := range s.lanes.parked {
		ids = append(ids, id)
	}
	s.lanes.mu.Unlock()
	s.f.parking.mu.Lock()
	delete(s.f.parking.sessions, s.id)
	s.f.parking.mu.Unlock()
	for _, id := range ids {
		s.drop(id)
	}
}
