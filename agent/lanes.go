package agent

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/tunnox-net/tunnox/seal"
	"github.com/tunnox-net/tunnox/transport"
	"github.com/tunnox-net/tunnox/wire"
	"github.com/tunnox-net/tunnox/wire/wirepb"
)

// carriesLane says in Hello that the agent can make lanes, over this session's transport:
// connections that the forwarder joins in the kernel, for the bulk of streams that are
// encrypted from end to end.
const carriesLane = "lane-1"

const (
	lanesAhead = 2                // made before they are needed, after the first was
	laneIdle   = 4 * time.Minute  // then a lane that nobody took is closed; the forwarder waits longer
	laneTime   = 15 * time.Second // to make a lane, or to have one joined
	lanesMade  = 4                // at once
	laneRetry  = 2 * time.Second  // until a stream that got no lane asks again; doubles
	laneTries  = 6
)

// lanes are those of one session. A nil lanes has none.
type lanes struct {
	s   *session
	key []byte
	// These have a slot for each stream that is getting a lane: of this source agent, and
	// of this target agent. The forwarder parks a few lanes of a session only.
	asking, giving chan struct{}

	mu      sync.Mutex
	parked  []*parkedLane           // guarded by mu, like the next
	making  int                     // ahead
	streams map[uint64]seal.Movable // of this target agent, by ticket
	moved   int                     // streams, so far
	closed  bool
}

// parkedLane is a lane that the forwarder knows by its id.
type parkedLane struct {
	*transport.Lane
	id    uint64
	timer *time.Timer
}

// promotable has a stream of this source agent promoted when it has become bulk.
func (l *lanes) promotable(stream transport.Stream, ticket uint64) {
	movable, ok := stream.(seal.Movable)
	if l == nil || ticket == 0 || !ok {
		return
	}
	l.ask(movable, ticket, 0)
}

// ask waits until a stream is bulk and asks for a lane then, after so many tries.
func (l *lanes) ask(stream seal.Movable, ticket uint64, tries int) {
	stream.OnBulk(func() {
		l.s.a.start(func() {
			err := l.promote(stream, ticket)
			if err == nil {
				l.s.log.Debug("a connection goes on over a lane", "ticket", ticket)
				l.ahead()
				return
			}
			l.s.log.Debug("no lane for a connection, which goes on as it is", "ticket", ticket, "error", err)
			if tries+1 < laneTries && !errors.Is(err, seal.ErrMoved) {
				time.AfterFunc(laneRetry<<tries, func() { l.ask(stream, ticket, tries+1) })
			}
		})
	})
}

// promote has the forwarder join a lane with one of the target agent, and moves the stream
// there.
func (l *lanes) promote(stream seal.Movable, ticket uint64) error {
	ctx, cancel := context.WithTimeout(l.s.a.ctx, laneTime)
	defer cancel()
	done, err := turn(ctx, l.asking)
	if err != nil {
		return err
	}
	defer done()
	if !stream.CanMove() {
		return seal.ErrMoved // many end while they wait for their turn
	}
	lane, err := l.take(ctx)
	if err != nil {
		return err
	}
	if err := l.join(ctx, ticket, lane.id); err != nil {
		_ = lane.Reset()
		return err
	}
	l.mu.Lock()
	l.moved++
	l.mu.Unlock()
	return stream.Move(lane.Lane)
}

// join asks the forwarder to join a lane for a stream.
func (l *lanes) join(ctx context.Context, ticket, lane uint64) error {
	stream, err := l.s.link.Open(ctx)
	if err != nil {
		return err
	}
	defer stream.Close()
	deadline, _ := ctx.Deadline()
	_ = stream.SetDeadline(deadline)
	err = wire.WriteOpen(stream, &wirepb.Open{Promote: &wirepb.Promote{Ticket: ticket, Lane: lane}})
	if err != nil {
		return err
	}
	return wire.ReadOpened(stream)
}

// received notes a stream of this target agent, until forget.
func (l *lanes) received(stream transport.Stream, ticket uint64) (forget func()) {
	movable, ok := stream.(seal.Movable)
	if l == nil || ticket == 0 || !ok {
		return func() {}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.streams == nil {
		l.streams = map[uint64]seal.Movable{}
	}
	l.streams[ticket] = movable
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.streams, ticket)
	}
}

// give answers the forwarder, which wants a lane for a stream.
func (l *lanes) give(ctx context.Context, stream transport.Stream, ticket uint64) {
	ctx, cancel := context.WithTimeout(ctx, laneTime)
	defer cancel()
	id, err := l.expect(ctx, ticket)
	if err != nil {
		refuse(stream, err)
		return
	}
	_ = stream.SetDeadline(time.Now().Add(farewellTime))
	if wire.WriteYes(stream, &wirepb.Opened{Lane: id}) != nil {
		_ = stream.Reset()
		return
	}
	_ = stream.CloseWrite()
	l.mu.Lock()
	l.moved++
	l.mu.Unlock()
	l.ahead()
}

// expect gives a stream the lane to which its peer will move.
func (l *lanes) expect(ctx context.Context, ticket uint64) (id uint64, err error) {
	if l == nil {
		return 0, wire.LaneUnavailable
	}
	l.mu.Lock()
	stream := l.streams[ticket]
	l.mu.Unlock()
	if stream == nil {
		return 0, wire.LaneUnavailable
	}
	done, err := turn(ctx, l.giving)
	if err != nil {
		return 0, wire.LaneUnavailable
	}
	defer done()
	if !stream.CanMove() {
		return 0, wire.LaneUnavailable
	}
	lane, err := l.take(ctx)
	if err != nil {
		l.s.log.Debug("no lane for a connection, which goes on as it is", "ticket", ticket, "error", err)
		return 0, wire.LaneUnavailable
	}
	if stream.Expect(lane.Lane) != nil {
		return 0, wire.LaneUnavailable
	}
	l.s.log.Debug("a connection may go on over a lane", "ticket", ticket)
	return lane.id, nil
}

// turn waits for a slot, which done gives back.
func turn(ctx context.Context, slots chan struct{}) (done func(), err error) {
	select {
	case slots <- struct{}{}:
		return func() { <-slots }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// take gives a lane: one that was made ahead, or a new one.
func (l *lanes) take(ctx context.Context) (*parkedLane, error) {
	for {
		l.mu.Lock()
		last := len(l.parked) - 1
		if last < 0 {
			l.mu.Unlock()
			return l.make(ctx)
		}
		lane := l.parked[last]
		l.parked = l.parked[:last]
		l.mu.Unlock()
		lane.timer.Stop()
		if lane.Quiet() {
			return lane, nil
		}
		_ = lane.Reset() // the forwarder has closed it
	}
}

// make makes a lane beside the session.
func (l *lanes) make(ctx context.Context) (*parkedLane, error) {
	call, err := transport.DialLane(ctx, l.s.link)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = call.Close() })
	defer stop()
	id, err := l.introduce(call)
	if err != nil {
		_ = call.Close()
		return nil, fmt.Errorf("make a lane: %w", err)
	}
	lane, err := call.Bare()
	if err != nil {
		return nil, err
	}
	return &parkedLane{Lane: lane, id: id}, nil
}

// introduce says which session a lane is of.
func (l *lanes) introduce(call *transport.LaneCall) (id uint64, err error) {
	err = wire.WriteLaneHello(call, &wirepb.LaneHello{Session: l.s.id, Proof: wire.LaneProof(l.key, call.Binding())})
	if err != nil {
		return 0, err
	}
	return wire.ReadLaneParked(call)
}

// ahead makes lanes before they are needed.
func (l *lanes) ahead() {
	l.mu.Lock()
	missing := lanesAhead - len(l.parked) - l.making
	if l.closed || missing <= 0 {
		l.mu.Unlock()
		return
	}
	l.making += missing
	l.mu.Unlock()
	l.s.a.start(func() {
		for range missing {
			l.park()
		}
	})
}

// park makes one lane and keeps it.
func (l *lanes) park() {
	ctx, cancel := context.WithTimeout(l.s.a.ctx, laneTime)
	defer cancel()
	lane, err := l.make(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.making--
	switch {
	case err != nil:
		l.s.log.Debug("no lane was made", "error", err)
	case l.closed:
		_ = lane.Reset()
	default:
		lane.timer = time.AfterFunc(laneIdle, func() { l.expire(lane) })
		l.parked = append(l.parked, lane)
	}
}

// expire closes a lane that nobody took.
func (l *lanes) expire(lane *parkedLane) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, p := range l.parked {
		if p == lane {
			l.parked = append(l.parked[:i], l.parked[i+1:]...)
			_ = lane.Reset()
			return
		}
	}
}

// count gives how many streams have moved to lanes.
func (l *lanes) count() int {
	if l == nil {
		return 0
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.moved
}

// close ends the lanes that nobody took, with their session.
func (l *lanes) close() {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	for _, lane := range l.parked {
		lane.timer.Stop()
		_ = lane.Reset()
	}
	l.parked = nil
}
