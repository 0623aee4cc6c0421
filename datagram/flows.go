package datagram

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	// evictAfter is how long a flow must be silent before another may have its place.
	evictAfter = time.Second
	// refusedFor is how long the datagrams of a source are dropped after what they lead
	// to was refused, before it is asked for again.
	refusedFor = time.Second
)

// Config is what flows are made of.
type Config struct {
	// Carry takes a new flow to where it leads, in a goroutine of its own, or calls
	// Refuse. It must not block. It reports false when there is no room for another.
	Carry func(f *Flow) bool
	// Idle is after how long a silent flow ends.
	Idle func() time.Duration
	// Most flows there may be, and MostPerSource of one address. When there are so many,
	// the one that was silent for longest makes room, if it was silent for a second.
	Most, MostPerSource int
	// NewPerSecond is how many new flows there may be a second, with twice as many at
	// once; 0 = any number.
	NewPerSecond int
	Budget       *Budget // of answers to sources that may be forged; nil: none
	Counts       *Counts
}

// Flows are the flows of one mapping's sockets, by source address.
type Flows struct {
	Config
	news *rate.Limiter

	mu      sync.Mutex // guards all below
	flows   map[key]*entry
	sources map[netip.Addr]*source
	sweeper *time.Timer // nil while there are no flows
}

// key tells flows apart: whose the datagrams are, and at which address they came in.
type key struct {
	remote netip.AddrPort
	local  netip.Addr // invalid when the socket has one address only
	socket *Socket
}

// entry is a flow in its place.
type entry struct {
	flow    *Flow
	refused int64 // since when what it leads to is refused, see clock; 0 = it is not
}

// NewFlows makes flows. Nothing runs as long as there are none.
func NewFlows(c Config) *Flows {
	f := &Flows{Config: c, flows: map[key]*entry{}, sources: map[netip.Addr]*source{}}
	if c.NewPerSecond > 0 {
		f.news = rate.NewLimiter(rate.Limit(c.NewPerSecond), 2*c.NewPerSecond)
	}
	return f
}

// Serve takes the datagrams that come in at a socket, until it is closed. Then the
// flows that came through it end. failed is called with other errors of the socket, and
// may wait a moment.
func (fs *Flows) Serve(s *Socket, failed func(error)) {
	defer fs.end(s)
	var told []*Flow
	for {
		told = told[:0]
		err := s.receive(func(from netip.AddrPort, to netip.Addr, payload []byte) {
			flow := fs.deliver(s, from, to, payload)
			if flow != nil && (len(told) == 0 || told[len(told)-1] != flow) {
				told = append(told, flow)
			}
		})
		for i, flow := range told { // a datagram that came with others goes on with them
			told[i] = nil
			flow.tell()
		}
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			failed(err)
		}
	}
}

// deliver gives a datagram to its flow, which is made if there is none. It returns the
// flow when who reads it is to be told.
func (fs *Flows) deliver(s *Socket, from netip.AddrPort, to netip.Addr, payload []byte) *Flow {
	k := key{from, to, s}
	fs.mu.Lock()
	e := fs.flows[k]
	if e != nil && e.refused != 0 && time.Duration(clock()-e.refused) >= refusedFor {
		fs.drop(k, e)
		e = nil
	}
	fresh := e == nil
	if fresh {
		if e = fs.begin(k); e == nil {
			fs.mu.Unlock()
			fs.Counts.Refused.Add(1)
			return nil
		}
	}
	fs.sources[from.Addr()].hears(len(payload))
	refused := e.refused != 0
	fs.mu.Unlock()
	if refused {
		fs.Counts.Refused.Add(1)
		return nil
	}
	e.flow.touch()
	told := e.flow.push(payload)
	if fresh {
		if !fs.Carry(e.flow) {
			e.flow.Close()
			fs.Counts.Refused.Add(1)
		}
		return nil // who carries it looks first
	}
	if !told {
		return nil
	}
	return e.flow
}

// begin makes a flow, if there may be one more. The lock is held.
func (fs *Flows) begin(k key) *entry {
	host := k.remote.Addr()
	src := fs.sources[host]
	if src != nil && src.flows >= fs.MostPerSource && !fs.evict(func(other key) bool { return other.remote.Addr() == host }) ||
		len(fs.flows) >= fs.Most && !fs.evict(func(key) bool { return true }) ||
		fs.news != nil && !fs.news.Allow() {
		return nil
	}
	if src = fs.sources[host]; src == nil {
		src = &source{since: clock()}
		fs.sources[host] = src
	}
	src.flows++
	e := &entry{}
	answer := k.socket.answer(k.remote, k.local)
	e.flow = newFlow(k.socket.localAddr(k.local), net.UDPAddrFromAddrPort(k.remote), fs.Counts, func(payload []byte) error {
		if fs.Budget != nil {
			fs.mu.Lock()
			may := fs.Budget.draws(src, len(payload))
			fs.mu.Unlock()
			if !may {
				return errSpared
			}
		}
		return answer(payload)
	}, func() {
		fs.mu.Lock()
		defer fs.mu.Unlock()
		if fs.flows[k] == e && e.refused == 0 {
			fs.drop(k, e)
		}
	})
	fs.flows[k] = e
	fs.Counts.Open.Add(1)
	if fs.sweeper == nil {
		fs.sweeper = time.AfterFunc(fs.pause(), fs.sweep)
	}
	return e
}

// drop takes a flow out of its place. The lock is held.
func (fs *Flows) drop(k key, e *entry) {
	delete(fs.flows, k)
	fs.Counts.Open.Add(-1)
	host := k.remote.Addr()
	if src := fs.sources[host]; src != nil {
		if src.flows--; src.flows == 0 {
			delete(fs.sources, host)
		}
	}
}

// evict ends the flow that was silent for longest among those that may, if that was
// long enough. The lock is held.
func (fs *Flows) evict(may func(key) bool) bool {
	var oldest key
	var found *entry
	for k, e := range fs.flows {
		if may(k) && (found == nil || e.flow.heard.Load() < found.flow.heard.Load()) {
			oldest, found = k, e
		}
	}
	if found == nil || found.flow.silent() < evictAfter {
		return false
	}
	fs.drop(oldest, found)
	go found.flow.finish() // it runs what moves its bytes, which may take a while
	return true
}

// Refuse has the datagrams of a flow's source dropped for a second: what they lead to
// was refused.
func (fs *Flows) Refuse(f *Flow) {
	fs.mu.Lock()
	for _, e := range fs.flows {
		if e.flow == f {
			e.refused = clock()
		}
	}
	fs.mu.Unlock()
	f.Close()
}

// pause is the time between two looks for flows that are silent.
func (fs *Flows) pause() time.Duration {
	return max(20*time.Millisecond, min(fs.Idle()/10, time.Second))
}

// sweep ends the flows that were silent for too long.
func (fs *Flows) sweep() {
	var silent []*Flow
	idle := fs.Idle()
	fs.mu.Lock()
	for k, e := range fs.flows {
		switch {
		case e.refused != 0:
			if time.Duration(clock()-e.refused) >= refusedFor {
				fs.drop(k, e)
			}
		case e.flow.silent() >= idle:
			fs.drop(k, e)
			silent = append(silent, e.flow)
		}
	}
	if len(fs.flows) > 0 {
		fs.sweeper.Reset(fs.pause())
	} else {
		fs.sweeper = nil
	}
	fs.mu.Unlock()
	for _, f := range silent {
		f.finish()
	}
}

// end ends the flows that came through a socket.
func (fs *Flows) end(s *Socket) {
	var ended []*Flow
	fs.mu.Lock()
	for k, e := range fs.flows {
		if k.socket == s {
			fs.drop(k, e)
			ended = append(ended, e.flow)
		}
	}
	if len(fs.flows) == 0 && fs.sweeper != nil {
		fs.sweeper.Stop()
		fs.sweeper = nil
	}
	fs.mu.Unlock()
	for _, f := range ended {
		f.finish()
	}
}

// Close ends all flows at once.
func (fs *Flows) Close() {
	fs.mu.Lock()
	var all []*Flow
	for _, e := range fs.flows {
		all = append(all, e.flow)
	}
	fs.mu.Unlock()
	for _, f := range all {
		f.Reset()
	}
}

// Len is how many flows there are.
func (fs *Flows) Len() int {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return len(fs.flows)
}
