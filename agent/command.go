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

// ErrNoResult: the session or the time ended before the result of a command came. The
// command may have been executed; a second try with the same key finds out.
var ErrNoResult = errors.New("agent: no result of the command came")

// Do asks the control plane for a command of this agent's own client: create, delete or
// list mappings that it is an end of. Do waits for a session. If a session ends without
// a result, Do asks again over another one. This is safe, because the command has a
// key; Do draws one if the command has none. The result's code tells whether the
// command was executed. An error means that no result came.
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
		select { // wait until the session has ended and is not picked any more
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

// answered hands a result to the caller that waits for it. There may be none: that
// caller has left.
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
		s.link.Close() // a control stream that accepts nothing has ended
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
