package forwarder

import (
	"cmp"
	"slices"
	"sync/atomic"
	"time"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/transport"
	"github.com/tunnox-net/tunnox/usage"
)

// totalOf counts bytes in the forwarder's metrics only.
func totalOf(m *Metrics) transport.Count {
	return transport.Count{AToB: func(n int) { m.toTarget.Add(int64(n)) }, BToA: func(n int) { m.toSource.Add(int64(n)) }}
}

// meter counts a mapping's bytes as they pass, not when a stream ends, and charges them
// to the payer. It may live longer than the mapping in the routes: as long as the
// mapping's streams, and until its counts have been reported.
type meter struct {
	mapping, source, target int64 // ids
	payer                   *account
	tally                   *tally
	count                   transport.Count // made once for all streams of the mapping

	toTarget atomic.Int64
	toSource atomic.Int64
	begun    atomic.Int64 // streams, ever
	open     atomic.Int64 // streams, now
	touched  atomic.Bool  // the meter is in the tally's list

	elsewhere   atomic.Int64 // streams at other forwarders
	elsewhereAt atomic.Int64 // the time of that number, Unix nanoseconds

	reported usage.Traffic // guarded by tally.making
}

func newMeter(total *Metrics, t *tally, of *domain.Mapping, payer *account) *meter {
	m := &meter{mapping: of.ID, source: of.SourceClientID, target: of.TargetClientID, payer: payer, tally: t}
	m.count = transport.Count{
		AToB: func(n int) { m.toTarget.Add(int64(n)); total.toTarget.Add(int64(n)); m.carried(n) },
		BToA: func(n int) { m.toSource.Add(int64(n)); total.toSource.Add(int64(n)); m.carried(n) },
	}
	if payer != nil {
		m.count.Brake = &payer.brake
	}
	return m
}

// carried is called for every piece that passes. For an account without limits it is
// two loads.
func (m *meter) carried(n int) {
	m.touch()
	if m.payer != nil {
		m.payer.charge(int64(n))
	}
}

// touch makes the next report read the meter.
func (m *meter) touch() {
	if !m.touched.Load() && m.touched.CompareAndSwap(false, true) {
		m.tally.touch(m)
	}
}

// opened and closed set how many streams are open after one began or ended.
func (m *meter) opened(open int) { m.begun.Add(1); m.closed(open) }

func (m *meter) closed(open int) { m.open.Store(int64(open)); m.touch() }

// away gives how many streams of the mapping are open at other forwarders, if a recent
// answer says so. A refusal makes the next report ask again.
func (m *meter) away(now time.Time) int64 {
	if m.elsewhere.Load() == 0 || now.UnixNano()-m.elsewhereAt.Load() > int64(usage.Fresh) {
		return 0
	}
	return m.elsewhere.Load()
}

// Traffic is the traffic of a mapping here since one of its clients connected. A stream
// between two forwarders counts at the source agent's forwarder, so that the sum over
// all nodes is right.
type Traffic struct {
	MappingID int64
	ToTarget  int64 // bytes from source agent to target agent
	ToSource  int64
	Streams   int // open now
}

// Traffic lists the mappings whose source or target is connected here, by id.
// The numbers are live.
func (f *Forwarder) Traffic() []Traffic { return f.routes.traffic() }

func (r *routes) traffic() []Traffic {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]Traffic, 0, len(r.mappings))
	for id, m := range r.mappings {
		all = append(all, Traffic{MappingID: id, Streams: m.begun,
			ToTarget: m.meter.toTarget.Load(), ToSource: m.meter.toSource.Load()})
	}
	slices.SortFunc(all, func(a, b Traffic) int { return cmp.Compare(a.MappingID, b.MappingID) })
	return all
}
