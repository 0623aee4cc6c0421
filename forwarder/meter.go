package forwarder

import (
	"cmp"
	"slices"
	"sync/atomic"

	"github.com/tunnox-net/tunnox/transport"
)

// totalOf counts bytes in the forwarder's numbers only.
func totalOf(m *Metrics) transport.Count {
	return transport.Count{AToB: func(n int) { m.toTarget.Add(int64(n)) }, BToA: func(n int) { m.toSource.Add(int64(n)) }}
}

// meter counts a mapping's bytes as they pass, not when a stream ends.
type meter struct {
	toTarget atomic.Int64
	toSource atomic.Int64
	count    transport.Count // made once for all streams of the mapping
}

func newMeter(total *Metrics) *meter {
	m := &meter{}
	m.count = transport.Count{
		AToB: func(n int) { m.toTarget.Add(int64(n)); total.toTarget.Add(int64(n)) },
		BToA: func(n int) { m.toSource.Add(int64(n)); total.toSource.Add(int64(n)) },
	}
	return m
}

// Traffic is what a mapping has carried here since one of its clients connected.
// A stream between two forwarders counts at the source agent's, so that the sum
// over all nodes is right.
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
