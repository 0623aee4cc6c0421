package agent

import (
	"context"
	"crypto/rand"
	"fmt"
	mrand "math/rand/v2"
	"sync"
	"time"

	"github.com/tunnox-net/tunnox/transport"
	"github.com/tunnox-net/tunnox/wait"
	"github.com/tunnox-net/tunnox/wire"
)

// fencedPause is the minimum pause of an agent after another agent with the same
// identity has come. Without it, two machines with copies of one state directory would
// fence each other for ever, every few seconds, and connections of both would fail.
const fencedPause = 5 * time.Minute

// Fence is the reason why an agent pauses.
type Fence struct {
	By    string    `json:"by"`    // the forwarder's description of the other agent
	Until time.Time `json:"until"` // when the agent asks whether the other one is still connected
}

// fence is the agent's fence, while it pauses.
type fence struct {
	mu  sync.Mutex
	now *Fence // nil: the agent does not pause
}

// get gives the present fence, nil for none.
func (f *fence) get() *Fence {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.now == nil {
		return nil
	}
	now := *f.now
	return &now
}

// raise notes that another agent has come. first reports that nothing was noted before.
func (f *fence) raise(by string) (until time.Time, first bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	first = f.now == nil
	if first || !time.Now().Before(f.now.Until) {
		f.now = &Fence{By: by, Until: time.Now().Add(fencedPause + mrand.N(fencedPause/5))}
	}
	return f.now.Until, first
}

func (f *fence) lower() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.now = nil
}

// standBack is called when a session was refused, or ended, because another agent has
// this identity. It waits, and logs what the owner can do. Then the agent asks again as
// the same instance, which fences nobody. Only when the forwarder answers that the
// other agent has gone, the agent logs in as a new instance. standBack returns false
// when ctx ended.
func (a *Agent) standBack(ctx context.Context, refusal *wire.Refusal, instance string) bool {
	a.listeners.rest() // their addresses are free for others, such as the other agent
	if !refusal.Permanent {
		a.anew(instance)
		return wait.For(ctx, firstPause+mrand.N(time.Second))
	}
	until, first := a.fence.raise(refusal.Message)
	if first {
		a.log.Warn("another agent has this identity, so this agent connects again later: "+a.ownIdentity(), "client", a.identityID(), "reason", refusal, "next_try", until.UTC().Format(time.RFC3339))
	}
	return wait.For(ctx, time.Until(until))
}

// ownIdentity tells the owner how the agent gets another identity.
func (a *Agent) ownIdentity() string {
	if file := a.file(); file != "" {
		return fmt.Sprintf("if this machine or its state directory is a copy, stop the agent, delete %s, and join again to get a new identity; otherwise stop the other agent", file)
	}
	return "give this agent another client, with another id and auth code, or stop the other agent"
}

// anew draws a new instance in place of the fenced one, once: an agent has several
// sessions.
func (a *Agent) anew(fenced string) {
	a.idMu.Lock()
	defer a.idMu.Unlock()
	if a.instance == fenced {
		a.instance = rand.Text()
	}
}

// currentInstance gives the agent's instance.
func (a *Agent) currentInstance() string {
	a.idMu.Lock()
	defer a.idMu.Unlock()
	return a.instance
}

// rest closes all sockets and connections, until a session assigns listeners again.
func (ls *listeners) rest() {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	ls.empty()
}

// empty needs mu.
func (ls *listeners) empty() {
	clear(ls.views)
	ls.wanted = view{}
	clear(ls.failed)
	for id, l := range ls.open {
		if l.socket != nil {
			l.socket.Close()
		}
		for conn := range l.conns {
			transport.Reset(conn)
		}
		delete(ls.open, id)
	}
}
