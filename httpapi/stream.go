package httpapi

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tunnox-net/tunnox/domain"
)

// What a live stream of events costs at most. It holds no queue: it reads the
// log behind the reader's position, so that a slow reader costs a page.
const (
	livePage      = 100
	livePatience  = 10 * time.Second // for a page to be read
	liveHeartbeat = 15 * time.Second
	liveRetry     = 2 * time.Second // for the reader to come back, with jitter of its own
	mostStreams   = 256             // of this process, live and exports
	mostOfOne     = 16              // of one user, or key of the operator
	mostOfUsers   = 240             // of all who are no admins, who look at what happens then
	liveCheck     = time.Second     // how often it is looked whether the reader still may
)

type liveInput struct {
	RecordFilter
	After  int64  `query:"after" minimum:"-1" default:"-1" doc:"Begin after this position: 0 = the whole log, -1 = new events only" example:"42"`
	LastID string `header:"Last-Event-ID" maxLength:"20" doc:"Continue after this position; browsers send it when they reconnect" example:"42"`
}

type liveAnswer struct {
	ContentType string `header:"Content-Type" hidden:"true"`
	Buffering   string `header:"X-Accel-Buffering" hidden:"true"`
	Body        func(huma.Context)
}

func (a *api) registerStream() {
	op := operation(http.MethodGet, "/events/stream", "stream-events", "events", "Follow the log as it grows",
		errorsOfList...)
	op.Description = "Server-Sent Events: `data` is an event as GET /events shows it, `id` its position. Who comes back with `Last-Event-ID` misses nothing. An `event: log_behind` at the beginning says that the log does not reach that position, because it was restored or is another one; the stream then begins at its end."
	op.Responses = map[string]*huma.Response{"200": {Description: "OK", Content: map[string]*huma.MediaType{
		mediaEvents: {Schema: &huma.Schema{Type: huma.TypeString, Examples: []any{"id: 42\ndata: {\"position\":42,\"name\":\"mapping_created\"}\n\n"}}}}}}
	huma.Register(a.huma, op, a.stream)
}

func (a *api) stream(ctx context.Context, in *liveInput) (*liveAnswer, error) {
	q, err := a.query(ctx, in.RecordFilter)
	if err != nil {
		return nil, err
	}
	after := domain.Position(in.After)
	if in.LastID != "" {
		n, err := strconv.ParseInt(in.LastID, 10, 64)
		if err != nil || n < 0 {
			return nil, invalid("header.Last-Event-ID", "must be a position")
		}
		after = domain.Position(n)
	}
	head, err := a.head(ctx)
	if err != nil {
		return nil, a.unreadable(ctx, err)
	}
	beyond := after > head
	if after < 0 || beyond {
		after = head
	}
	q.After = max(q.After, after)
	end, err := a.streams.begin(identity(ctx))
	if err != nil {
		return nil, err
	}
	return &liveAnswer{ContentType: mediaEvents, Buffering: "no", Body: func(ctx huma.Context) {
		defer end()
		err := a.follow(ctx, q, beyond)
		if err != nil && ctx.Context().Err() == nil {
			a.logger.DebugContext(ctx.Context(), "live stream ended", "request", tracked(ctx.Context()).id, "error", err)
		}
	}}, nil
}

// follow writes what the query wants until the caller goes, may not see it any
// more, or the process ends. After its end the caller comes back by itself.
func (a *api) follow(ctx huma.Context, q domain.Query, beyond bool) error {
	until := q.Before
	out := newOutflow(ctx)
	out.grant(livePatience)
	if _, err := fmt.Fprintf(out, "retry: %d\n", liveRetry.Milliseconds()); err != nil {
		return err
	}
	if beyond {
		if err := writeBehind(out, q.After); err != nil {
			return err
		}
	}
	if err := beat(out, q.After); err != nil {
		return err
	}
	running, stop := a.streams.until(ctx.Context())
	defer stop()
	who, beaten := identity(ctx.Context()), time.Now()
	for {
		wait, cancel := context.WithTimeout(running, min(a.config.Heartbeat, liveCheck))
		err := a.config.Search.Wait(wait, q.After)
		cancel()
		switch {
		case running.Err() != nil:
			return running.Err()
		case err != nil && wait.Err() == nil:
			return err
		}
		// What the query may find was decided on who they were. Somebody whose key has
		// ended, or who may see something else by now, comes back and is decided on anew.
		if now, err := a.authenticate(ctx.Context(), ctx.Header("Authorization")); err != nil || !now.sees(who) {
			return errEnded
		}
		if err == nil {
			if q, err = a.catchUp(running, out, q, until); err != nil {
				return err
			}
		} else if time.Since(beaten) < a.config.Heartbeat {
			continue
		}
		beaten = time.Now()
		out.grant(livePatience)
		if err := beat(out, q.After); err != nil {
			return err
		}
		if until > 0 && q.After+1 >= until {
			return nil // nothing can come any more
		}
	}
}

// sees reports whether somebody may follow the log as they could before.
func (i Identity) sees(before Identity) bool {
	return i.UserID == before.UserID && i.Role == before.Role && slices.Contains(i.Scopes, ruleOf("stream-events").scope)
}

// catchUp writes all that the query wants up to the end of the log, and gives
// the query for what comes then.
func (a *api) catchUp(ctx context.Context, out *outflow, q domain.Query, until domain.Position) (domain.Query, error) {
	head, err := a.head(ctx)
	if err != nil {
		return q, err
	}
	q.Before = head + 1
	if until > 0 {
		q.Before = min(q.Before, until)
	}
	for {
		records, err := a.config.Search.Select(ctx, q, livePage)
		if err != nil {
			return q, err
		}
		out.grant(livePatience)
		for _, r := range records {
			if err := a.writeEvent(ctx, out, r); err != nil {
				return q, err
			}
			q.After = r.Position
		}
		if len(records) < livePage {
			q.After = max(q.After, q.Before-1) // there is nothing of it up to here
			return q, out.flush()
		}
		if err := out.flush(); err != nil {
			return q, err
		}
	}
}

func (a *api) writeEvent(ctx context.Context, out *outflow, r domain.Record) error {
	event, err := a.event(ctx, r)
	if err != nil {
		return err
	}
	data, err := json.Marshal(event) // has no line breaks
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "id: %d\ndata: %s\n\n", r.Position, data)
	return err
}

// writeBehind tells a reader that their position is none of this log: it was
// restored to an older state, or is another one. They know what they have seen of
// it and may have to look again; what follows is what happens from now on.
func writeBehind(out *outflow, head domain.Position) error {
	_, err := fmt.Fprintf(out, "event: log_behind\nid: %d\ndata: {\"position\":%d,\"message\":%q}\n\n", head, head,
		"The log ends before the position you asked to go on behind: it was restored, or is another one. This goes on at its end.")
	return err
}

// beat shows that the stream lives, and moves the reader's position over what
// was not for it: an event without data changes nothing else (HTML §9.2.6).
func beat(out *outflow, at domain.Position) error {
	if _, err := fmt.Fprintf(out, ": %d\nid: %d\n\n", at, at); err != nil {
		return err
	}
	return out.flush()
}

// streams counts answers that stay open, and ends them with the process.
type streams struct {
	ended chan struct{}
	once  sync.Once

	mu    sync.Mutex
	all   int            // guarded by mu
	users int            // guarded by mu; of those who are no admins
	of    map[string]int // guarded by mu; by payer
}

func newStreams() *streams { return &streams{ended: make(chan struct{}), of: map[string]int{}} }

// begin counts one more, until end is called.
func (s *streams) begin(who Identity) (end func(), err error) {
	payer, user := who.payer(), 1
	if who.admin() {
		user = 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all >= mostStreams || s.users+user > mostOfUsers || s.of[payer] >= mostOfOne {
		return nil, tooMany(liveRetry, "Too many exports and live streams are open.")
	}
	s.all++
	s.users += user
	s.of[payer]++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.all--
		s.users -= user
		if s.of[payer]--; s.of[payer] == 0 {
			delete(s.of, payer)
		}
	}, nil
}

// errEnded is why a stream ended that its reader did not end.
var errEnded = fmt.Errorf("the process ends, or the key has")

// until gives a context that also ends with the process.
func (s *streams) until(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-s.ended:
			cancel(errEnded)
		case <-leaving(ctx):
			cancel(errEnded)
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(nil); <-done }
}

// end ends all of them, so that a server that is shut down needs not wait.
func (s *streams) end() { s.once.Do(func() { close(s.ended) }) }
