package wire

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/tunnox-net/tunnox/wire/wirepb"
)

const (
	// MaxPart bounds the lists of a part of Assign or Ack. It is far below
	// [MaxControl], so that a slow link takes a part within the time of one write,
	// and other messages get their turn between two.
	MaxPart = 64 << 10
	// MaxListeners bounds an Assign over all of its parts: the agent holds them until
	// the last has come. A control plane allows a client fewer mappings
	// (domain.MaxClientMappings).
	MaxListeners = 100_000
)

// AssignParts gives the messages that say the same as m, none larger than a message
// may be. A small m is its own only part.
func AssignParts(m *wirepb.Assign) []*wirepb.Assign {
	if proto.Size(m) <= MaxPart {
		return []*wirepb.Assign{m}
	}
	var parts []*wirepb.Assign
	listeners, withdraw := m.GetListeners(), m.GetWithdraw()
	for len(parts) == 0 || len(listeners) > 0 || len(withdraw) > 0 {
		part := &wirepb.Assign{Version: m.GetVersion(), Full: m.GetFull() && len(parts) == 0, Unchanged: m.GetUnchanged(), More: true}
		room := MaxPart
		part.Withdraw, withdraw = fill(withdraw, &room, func(int64) int { return maxVarint })
		part.Listeners, listeners = fill(listeners, &room, func(l *wirepb.Listener) int { return proto.Size(l) })
		parts = append(parts, part)
	}
	parts[len(parts)-1].More = false
	return parts
}

// AckParts is [AssignParts] for an Ack.
func AckParts(m *wirepb.Ack) []*wirepb.Ack {
	if proto.Size(m) <= MaxPart {
		return []*wirepb.Ack{m}
	}
	var parts []*wirepb.Ack
	failures := m.GetFailures()
	for len(parts) == 0 || len(failures) > 0 {
		part, room := &wirepb.Ack{Version: m.GetVersion(), More: true}, MaxPart
		part.Failures, failures = fill(failures, &room, func(f *wirepb.Failure) int { return proto.Size(f) })
		parts = append(parts, part)
	}
	parts[len(parts)-1].More = false
	return parts
}

const (
	maxVarint = 10 // bytes of the largest number
	ofElement = 4  // bytes before an element: its tag and its length
)

// fill splits off the elements that fit into the room, at least one if nothing was in it.
func fill[E any](all []E, room *int, size func(E) int) (taken, rest []E) {
	n := 0
	for ; n < len(all); n++ {
		need := size(all[n]) + ofElement
		if need > *room && (n > 0 || *room < MaxPart) {
			break
		}
		*room -= need
	}
	return all[:n:n], all[n:]
}

// Assembly puts the parts of an Assign together. The zero value is ready.
type Assembly struct{ whole *wirepb.Assign }

// Add takes the next part. It gives the whole with the last part, and nil before. The
// error wraps [Malformed]: the parts do not belong together, or they are too many.
func (a *Assembly) Add(part *wirepb.Assign) (*wirepb.Assign, error) {
	if a.whole == nil && !part.GetMore() {
		return part, nil
	}
	switch {
	case part.GetUnchanged():
		return nil, fmt.Errorf("a configuration in parts that is unchanged: %w", Malformed)
	case a.whole == nil:
		a.whole = &wirepb.Assign{Version: part.GetVersion(), Full: part.GetFull()}
	case part.GetFull(), part.GetVersion() != a.whole.GetVersion():
		return nil, fmt.Errorf("a configuration of version %d begins within that of version %d: %w", part.GetVersion(), a.whole.GetVersion(), Malformed)
	}
	if held := len(a.whole.Listeners) + len(a.whole.Withdraw) + len(part.Listeners) + len(part.Withdraw); held > MaxListeners {
		return nil, fmt.Errorf("a configuration with %d listeners, at most %d are allowed: %w", held, MaxListeners, Malformed)
	}
	a.whole.Listeners = append(a.whole.Listeners, part.GetListeners()...)
	a.whole.Withdraw = append(a.whole.Withdraw, part.GetWithdraw()...)
	if part.GetMore() {
		return nil, nil
	}
	whole := a.whole
	a.whole = nil
	return whole, nil
}
