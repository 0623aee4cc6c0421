package agent

import (
	"errors"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tunnox-net/tunnox/transport"
	"github.com/tunnox-net/tunnox/wire"
	"github.com/tunnox-net/tunnox/wire/wirepb"
)

// maxPassages is how many connections of a tunnel are kept, and how many requests are
// shown: about what fits on a large terminal.
const maxPassages = 60

// TunnelTraffic is what passes over a tunnel of a program in the foreground, since the
// program has begun it with this agent. Numbers of bytes are seen from the service.
type TunnelTraffic struct {
	Open        int       `json:"open"`        // connections now
	Connections int64     `json:"connections"` // all that came to the service, with those
	Failed      int64     `json:"failed"`      // that did not come to it
	ToService   int64     `json:"to_service"`
	FromService int64     `json:"from_service"`
	Passages    []Passage `json:"passages"` // the latest first
	// Requests are those of an http tunnel whose program watches, the latest first.
	Requests []Request `json:"requests"`
}

// Passage is one connection, or flow of datagrams, over a tunnel.
type Passage struct {
	At          time.Time `json:"at"`
	From        string    `json:"from"` // the address of whoever connected, as it is known here
	Open        bool      `json:"open"`
	Seconds     float64   `json:"seconds"` // that it lasted, up to now
	ToService   int64     `json:"to_service"`
	FromService int64     `json:"from_service"`
	Code        string    `json:"code,omitempty"`    // why it failed, "" = it did not
	Message     string    `json:"message,omitempty"` // the same for people
}

// Request is one HTTP request over a tunnel.
type Request struct {
	At     time.Time `json:"at"`
	Method string    `json:"method"`
	Target string    `json:"target"` // as it stands in the request line
	Status int       `json:"status"` // 0 = no answer yet
	Millis float64   `json:"ms"`     // until the answer was whole; 0 = it is not
	From   string    `json:"from"`   // the visitor's address
	Error  string    `json:"error,omitempty"`
}

// tally counts the connections of one tunnel. Only tunnels of programs in the foreground
// have one: of other mappings nobody on this machine looks at the numbers. A nil tally
// counts nothing.
type tally struct {
	toService, fromService atomic.Int64
	warn                   func(from string, reason error) // tells the program, nil: nobody
	said                   complaints

	mu                  sync.Mutex
	connections, failed int64
	open                int
	latest              []*crossing // the oldest first
}

// crossing is one connection that a tally counts. A nil one is not counted.
type crossing struct {
	t                      *tally
	from                   string
	at                     time.Time
	toService, fromService atomic.Int64
	lasted                 time.Duration // guarded by t.mu, like the two below
	over                   bool
	reason                 error
}

// tally gives that of the tunnel which a connection belongs to, nil when no program
// holds one. service is the service of a connection that leads to this machine: with
// that the mappings which were made of a share's code are known.
func (ts *tunnels) tally(mapping int64, service string) *tally {
	if ts == nil || mapping == 0 {
		return nil
	}
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if len(ts.open) == 0 {
		return nil
	}
	var shared *tally
	for _, t := range ts.open {
		for _, held := range t.holds {
			if held == mapping {
				return &t.tally
			}
		}
		if t.wish.Kind == TunnelExpose && service != "" && t.allowed == service {
			shared = &t.tally
		}
	}
	if ts.held[mapping] > 0 {
		return nil
	}
	return shared
}

// begin counts a connection that has come to its service.
func (t *tally) begin(from string) *crossing {
	if t == nil {
		return nil
	}
	p := &crossing{t: t, from: from, at: time.Now()}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.connections++
	t.open++
	t.keep(p)
	return p
}

// refused counts a connection that has not.
func (t *tally) refused(from string, reason error) {
	if t == nil || reason == nil {
		return
	}
	if now := time.Now(); t.warn != nil && t.said.due(complaint{code: wire.CodeOf(reason)}, now) {
		t.warn(from, reason)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.failed++
	t.keep(&crossing{t: t, from: from, at: time.Now(), over: true, reason: reason})
}

// warnOf tells the program that a connection over its tunnel has failed, why, and what to
// do. Who connects sees a reset only.
func (t *tunnel) warnOf(from string, reason error) {
	code := wire.CodeOf(reason)
	if code == wire.Internal || code == wire.VisitorLeft {
		return // that there is no session is told already, and who has left wants to know nothing
	}
	why := code.Sentence()
	if refusal, ok := errors.AsType[*wire.Refusal](reason); ok && refusal.Message != "" {
		why = refusal.Message
	}
	text := "a connection failed: " + why
	switch {
	case t.wish.Protocol == socksProtocol:
		text = "a connection to " + from + " failed: " + why
	case code == wire.DialRefused && t.allowed != "":
		text = "nothing listens on " + t.allowed + ": start the service; the tunnel stays open"
	}
	switch {
	case code == wire.TargetOffline:
		text += "; run tunnox agent on that machine"
	case code == wire.DialRefused && t.allowed == "":
		text += "; start it there"
	}
	t.tell(TunnelNews{Event: "warning", Code: string(code), Message: text})
}

// keep notes the newest. Of those that have ended the oldest goes. mu is held.
func (t *tally) keep(p *crossing) {
	t.latest = append(t.latest, p)
	if len(t.latest) <= maxPassages {
		return
	}
	copy(t.latest, t.latest[1:])
	t.latest[maxPassages] = nil
	t.latest = t.latest[:maxPassages]
}

// count gives what a splice from the service's visitor to the service counts with.
func (p *crossing) count() transport.Count {
	if p == nil {
		return transport.Count{}
	}
	return transport.Count{
		AToB: func(n int) { p.toService.Add(int64(n)); p.t.toService.Add(int64(n)) },
		BToA: func(n int) { p.fromService.Add(int64(n)); p.t.fromService.Add(int64(n)) },
	}
}

func (p *crossing) end() {
	if p == nil {
		return
	}
	p.t.mu.Lock()
	defer p.t.mu.Unlock()
	p.t.open--
	p.over, p.lasted = true, time.Since(p.at)
}

// traffic gives the numbers.
func (t *tally) traffic() TunnelTraffic {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := TunnelTraffic{Open: t.open, Connections: t.connections, Failed: t.failed, ToService: t.toService.Load(), FromService: t.fromService.Load(),
		Passages: []Passage{}, Requests: []Request{}}
	for i := len(t.latest) - 1; i >= 0; i-- {
		p := t.latest[i]
		one := Passage{At: p.at.UTC(), From: p.from, Open: !p.over, ToService: p.toService.Load(), FromService: p.fromService.Load()}
		lasted := p.lasted
		if one.Open {
			lasted = time.Since(p.at)
		}
		if one.Seconds = lasted.Seconds(); p.reason != nil {
			code := wire.CodeOf(p.reason)
			one.Code, one.Message = string(code), code.Sentence()
		}
		all.Passages = append(all.Passages, one)
	}
	return all
}

// tallied counts a connection that a stream asks for at this machine's service.
func (t *target) tallied(open *wirepb.Open) *tally {
	return t.agent.tunnels.tally(open.GetMappingId(), open.GetService())
}

// localTraffic tells what passes over one tunnel.
func (a *Agent) localTraffic(w http.ResponseWriter, r *http.Request) {
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err != nil {
		refuseLocal(w, http.StatusUnprocessableEntity, "invalid", "The id is not a number.")
		return
	}
	a.tunnels.mu.Lock()
	t := a.tunnels.open[id]
	var mappings []int64
	if t != nil {
		mappings = append(mappings, t.holds...)
	}
	a.tunnels.mu.Unlock()
	if t == nil {
		refuseLocal(w, http.StatusNotFound, "tunnel_not_found", "There is no such tunnel.")
		return
	}
	all := t.tally.traffic()
	if t.wish.Watch && a.inspector != nil {
		for _, mapping := range mappings {
			all.Requests = append(all.Requests, a.inspector.Requests(mapping, maxPassages)...)
		}
	}
	answerLocal(w, http.StatusOK, all)
}
