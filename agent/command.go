package agent

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/tunnox-net/tunnox/wire/wirepb"
)

// ErrNoResult: the session ended, or time did, before the result of a command came.
// It may have been executed; the same key finds out.
var ErrNoResult = errors.New("agent: no result of the command came")

// Do asks the control plane for something that this agent's own client may do:
// create, delete or list mappings that it is an end of. It waits for a session,
// and where one ends without a result it asks again over another, which is safe:
// the command has a key, drawn here when it has none. The result's code tells
// whether it was done; an error means that nobody said.
func (a *Agent) Do(ctx context.Context, command *wirepb.Command) (*wirepb.Result, error) {
	c := proto.CloneOf(command)
	if c.Key == "" {
		c.Key = rand.Text()
	}
	for {
		s, _, changed := a.sessions.pick(nil)
		if s == nil {
			select {
			case <-changed:
				continue
			case <-ctx.Done():
				return nil, fmt.Errorf("%w: not connected: %w", ErrNoResult, ctx.Err())
			}
		}
		r, err := s.do(ctx, c)
		if err == nil {
			return r, nil
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("%w: %w", ErrNoResult, ctx.Err())
		}
		select { // the session is over, and soon not picked any more
		case <-changed:
		case <-ctx.Done():
		}
	}
}

// asked are the commands of a session that have no result yet. The zero value is
// ready.
type asked struct {
	mu      sync.Mutex
	last    uint64                         // guarded by mu
	waiting map[uint64]chan *wirepb.Result // guarded by mu
}

func (q *asked) add() (id uint64, result chan *wirepb.Result) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.waiting == nil {
		q.waiting = map[uint64]chan *wirepb.Result{}
	}
	q.last++
	result = make(chan *wirepb.Result, 1)
	q.waiting[q.last] = result
	return q.last, result
}

func (q *asked) remove(id uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.waiting, id)
}

// answered hands a result to who waits for it. Nobody may: that one has left.
func (q *asked) answered(r *wirepb.Result) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if result := q.waiting[r.GetId()]; result != nil {
		result <- r
		delete(q.waiting, r.GetId())
	}
}

// do sends one command and waits for its result, or for the session's end.
func (s *session) do(ctx context.Context, c *wirepb.Command) (*wirepb.Result, error) {
	id, result := s.asked.add()
	defer s.asked.remove(id)
	m := proto.CloneOf(c)
	m.Id = id
	if err := s.send(&wirepb.Control{Message: &wirepb.Control_Command{Command: m}}); err != nil {
		s.link.Close() // a control stream that takes nothing is over
		return nil, err
	}
	select {
	case r := <-result:
		return r, nil
	case <-s.over:
		return nil, ErrNoResult
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
