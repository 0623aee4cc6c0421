package memory

import (
	"context"

	"github.com/tunnox-net/tunnox/directory"
)

// portion is what a node holds of a mapping's connections.
type portion struct {
	run      string
	sequence int64
	held     int64
}

// Reserve implements directory.Portions. Data in memory lives as long as the process
// that asks, so the answer is always settled.
func (d *Directory) Reserve(ctx context.Context, s directory.Portion) (g directory.Granted, err error) {
	if err := ctx.Err(); err != nil {
		return g, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.hasLease(s.Node, s.Run) {
		return g, directory.ErrNoLease
	}
	all := d.portions[s.Mapping]
	if all == nil {
		all = map[string]portion{}
		d.portions[s.Mapping] = all
	}
	others := int64(0)
	for node, other := range all {
		switch {
		case node == s.Node && other.run == s.Run:
			if other.sequence > s.Sequence {
				return g, directory.ErrLate
			}
		case node == s.Node:
		case d.hasLease(node, other.run):
			others += other.held
		default:
			delete(all, node)
		}
	}
	g = directory.Granted{Held: max(s.Held, min(s.Want, s.Limit-others)), Settled: true, Since: alwaysKnown}
	g.Over = others+g.Held > s.Limit
	all[s.Node] = portion{s.Run, s.Sequence, g.Held}
	if others+g.Held == 0 {
		delete(d.portions, s.Mapping)
	}
	if g.Held < s.Want {
		for node, other := range all {
			if node != s.Node && other.held > 0 {
				d.publish(node, directory.Notice{Kind: directory.Wanted, Mapping: s.Mapping})
			}
		}
	}
	return g, nil
}

// alwaysKnown is the value of Since: portions are known from the start.
const alwaysKnown = "the start"

// Since implements directory.Portions.
func (d *Directory) Since(ctx context.Context) (string, error) { return alwaysKnown, ctx.Err() }

// hasLease reports whether the node has a live lease in that run. The caller holds mu.
func (d *Directory) hasLease(node, run string) bool {
	l := d.leases[node]
	return l != nil && l.run == run && l.beaten.Add(directory.TTL).After(d.now())
}
