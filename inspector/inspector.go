// Package inspector records the HTTP requests that pass through an agent, and shows them
// on a page of the agent's own machine.
//
// It reads copies of the bytes. A connection that is faster than the recorder waits for
// it, but not for long; then it is recorded no more. What it keeps is in memory only, bounded, and leaves the
// machine only through the page, which asks for a token.
package inspector

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/tunnox-net/tunnox/transport"
)

const (
	// maxExchanges and maxBytes bound what is kept; the oldest goes first.
	maxExchanges = 500
	maxBytes     = 32 << 20
	// maxBody is how much of each body is kept.
	maxBody = 256 << 10
)

// Message is a request or an answer. Its body may be cut.
type Message struct {
	Header http.Header `json:"header"`
	Body   []byte      `json:"body"`   // the first maxBody bytes, as they came
	Length int64       `json:"length"` // of the whole body
	Proto  string      `json:"proto"`
}

// cut tells that the body is not there whole.
func (m *Message) cut() bool { return m.Length > int64(len(m.Body)) }

// Exchange is a request with its answer. Times are milliseconds after Started.
type Exchange struct {
	ID       int64     `json:"id"`
	Mapping  int64     `json:"mapping_id"`
	ReplayOf int64     `json:"replay_of,omitempty"`
	Started  time.Time `json:"started"`
	Method   string    `json:"method"`
	Target   string    `json:"target"` // as it stands in the request line
	Host     string    `json:"host"`
	Visitor  string    `json:"visitor"` // the last address of X-Forwarded-For
	Status   int       `json:"status"`  // 0: no answer yet
	Error    string    `json:"error,omitempty"`
	Sent     float64   `json:"sent_ms"`  // when the request was whole
	First    float64   `json:"first_ms"` // when the answer began
	Done     float64   `json:"done_ms"`  // when it was whole; 0: not yet
	Upgrade  bool      `json:"upgrade"`  // the connection became another protocol, such as a WebSocket
	Request  *Message  `json:"request,omitempty"`
	Response *Message  `json:"response,omitempty"`

	size int64 // what it counts in maxBytes
}

// summary is the exchange without headers and bodies.
func (x *Exchange) summary() Exchange {
	s := *x
	s.Request, s.Response = nil, nil
	return s
}

// Inspector keeps the exchanges of the mappings that it watches.
type Inspector struct {
	log   *slog.Logger
	token string

	mu       sync.Mutex
	last     int64
	size     int64
	kept     []*Exchange // the oldest first; a stored exchange is replaced, never changed
	watched  map[int64]*watched
	watchers map[chan Exchange]struct{}
}

// watched is a mapping under inspection.
type watched struct {
	tunnels int // how many tunnels asked for it
	dial    func(context.Context) (net.Conn, error)
}

// New makes an inspector. token is what its page has to be asked with.
func New(token string, log *slog.Logger) *Inspector {
	return &Inspector{log: log, token: token, watched: map[int64]*watched{}, watchers: map[chan Exchange]struct{}{}}
}

// Begin watches the connections of a mapping from now on, until End was called as often.
func (i *Inspector) Begin(mapping int64) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.watched[mapping] == nil {
		i.watched[mapping] = &watched{}
	}
	i.watched[mapping].tunnels++
}

// End ends what Begin began. What was recorded stays.
func (i *Inspector) End(mapping int64) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if w := i.watched[mapping]; w != nil {
		if w.tunnels--; w.tunnels == 0 {
			delete(i.watched, mapping)
		}
	}
}

// Watch gives a connection to a service that records what passes, or conn itself when the
// mapping is not watched. dial makes another connection to the same service, for replays.
func (i *Inspector) Watch(mapping int64, conn transport.Duplex, dial func(context.Context) (net.Conn, error)) transport.Duplex {
	i.mu.Lock()
	w := i.watched[mapping]
	if w != nil {
		w.dial = dial
	}
	i.mu.Unlock()
	if w == nil {
		return conn
	}
	return newTee(i, mapping, conn)
}

// store keeps an exchange, or its newer state. The caller changes x no more.
func (i *Inspector) store(x *Exchange) {
	x.size = int64(len(x.Target)) + x.Request.weight() + x.Response.weight() + 256
	i.mu.Lock()
	defer i.mu.Unlock()
	if at, found := slices.BinarySearchFunc(i.kept, x.ID, func(k *Exchange, id int64) int { return int(k.ID - id) }); found {
		i.size -= i.kept[at].size
		i.kept[at] = x
	} else if at == len(i.kept) {
		i.kept = append(i.kept, x)
	} else {
		return // it was dropped meanwhile
	}
	i.size += x.size
	for len(i.kept) > maxExchanges || i.size > maxBytes && len(i.kept) > 1 {
		i.size -= i.kept[0].size
		i.kept[0] = nil
		i.kept = i.kept[1:]
	}
	for c := range i.watchers {
		select {
		case c <- x.summary():
		default: // a page that does not read asks for the list when it does
		}
	}
}

// weight is about what a message takes in memory.
func (m *Message) weight() (n int64) {
	if m == nil {
		return 0
	}
	for key, values := range m.Header {
		n += int64(len(key)) + 64
		for _, v := range values {
			n += int64(len(v))
		}
	}
	return n + int64(cap(m.Body))
}

// next gives the number of a new exchange.
func (i *Inspector) next() int64 {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.last++
	return i.last
}

// list gives the summaries, the oldest first.
func (i *Inspector) list() []Exchange {
	i.mu.Lock()
	defer i.mu.Unlock()
	all := make([]Exchange, len(i.kept))
	for n, x := range i.kept {
		all[n] = x.summary()
	}
	return all
}

// Latest gives the summaries of a mapping's latest exchanges, the latest first.
func (i *Inspector) Latest(mapping int64, most int) (latest []Exchange) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for n := len(i.kept) - 1; n >= 0 && len(latest) < most; n-- {
		if i.kept[n].Mapping == mapping {
			latest = append(latest, i.kept[n].summary())
		}
	}
	return latest
}

// get gives an exchange, nil when it is not kept.
func (i *Inspector) get(id int64) *Exchange {
	i.mu.Lock()
	defer i.mu.Unlock()
	at, found := slices.BinarySearchFunc(i.kept, id, func(k *Exchange, id int64) int { return int(k.ID - id) })
	if !found {
		return nil
	}
	return i.kept[at]
}

// clear forgets all exchanges.
func (i *Inspector) clear() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.kept, i.size = nil, 0
}
