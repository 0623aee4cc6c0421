package forwarder

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/tunnox-net/tunnox/directory"
	"github.com/tunnox-net/tunnox/wire"
)

// These bounds limit how often an agent may fence another one that is connected here,
// with the same identity. An agent that is restarted by hand needs one takeover.
// Without bounds, two agents that their machines restart again and again would fence
// each other for ever, and connections of both would fail.
const (
	takeoversAtOnce = 4
	takeoversWithin = 10 * time.Minute
	// maxTakeovers bounds how many clients are remembered for that.
	maxTakeovers = 10_000
	// byWhomWait bounds the question which agent has come, whose answer is for people
	// only.
	byWhomWait = 300 * time.Millisecond
)

// takeovers counts them. The zero value is ready.
type takeovers struct {
	mu  sync.Mutex
	all map[int64]*rate.Limiter // by client
}

// allow reports whether the client may be taken over once more.
func (ts *takeovers) allow(client int64, now time.Time) bool {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	limiter := ts.all[client]
	if limiter == nil {
		if len(ts.all) >= maxTakeovers {
			for id, l := range ts.all {
				if l.TokensAt(now) >= takeoversAtOnce {
					delete(ts.all, id)
				}
			}
		}
		if ts.all == nil || len(ts.all) >= maxTakeovers { // all in use: begin again rather than refuse
			ts.all = map[int64]*rate.Limiter{}
		}
		limiter = rate.NewLimiter(rate.Limit(takeoversAtOnce/takeoversWithin.Seconds()), takeoversAtOnce)
		ts.all[client] = limiter
	}
	return limiter.AllowN(now, 1)
}

// supersededBy tells an agent which agent has its identity now, as far as that is
// known, so that its owner can find the other one.
func supersededBy(by directory.Session) *wire.Refusal {
	r := wire.Refuse(wire.Superseded)
	if by.Address != "" {
		r.Message += fmt.Sprintf(": it is at %s, version %s, since %s", by.Address, by.Version, by.Since.UTC().Format(time.RFC3339))
	}
	return r
}

// superseded gives the refusal for a fenced instance. If the agent that fenced it has
// left, the refusal is not permanent: the agent may come as a new instance.
func (f *Forwarder) superseded(ctx context.Context, client int64) *wire.Refusal {
	ctx, cancel := context.WithTimeout(ctx, byWhomWait)
	defer cancel()
	found, err := f.directory.Lookup(ctx, client)
	switch {
	case err != nil || len(found) != 1:
		return wire.Refuse(wire.Superseded) // the name of the other agent is for people; the fence itself is certain
	case len(found[0].Sessions) == 0:
		r := wire.Refuse(wire.Superseded)
		r.Message, r.Permanent = "the agent that had taken over has gone", false
		return r
	}
	return supersededBy(found[0].Sessions[0])
}

// fencedElsewhere ends a session that another one at another node has replaced.
func (f *Forwarder) fencedElsewhere(entry directory.Session) {
	refusal := f.superseded(f.ctx, entry.ClientID)
	refusal.Permanent = true // also when the other agent has left since: the agent asks again
	f.endNoticed(entry, refusal)
}
