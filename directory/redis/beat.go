package redis

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/tunnox-net/tunnox/directory"
)

// lease is the lease that keeps a node's sessions live.
type lease struct {
	now  time.Time
	runs [2]struct { // the present one and the one before
		run    string
		beaten time.Time
	}
}

// beaten gives the time of the node's last beat in that run.
func (l lease) beaten(run string) time.Time {
	for _, r := range l.runs {
		if r.run == run {
			return r.beaten
		}
	}
	return time.Time{}
}

// live reports whether sessions of that run are live.
func (l lease) live(run string) bool {
	return l.runs[0].run == run && l.runs[0].beaten.Add(directory.TTL).After(l.now)
}

// parseLease reads a lease as beatScript writes it.
func parseLease(text string, now time.Time) (l lease, err error) {
	l.now = now
	fields := strings.SplitN(text, " ", 4)
	if len(fields) != 4 {
		return l, fmt.Errorf("a lease of %d fields", len(fields))
	}
	for i := range l.runs {
		ms, err := strconv.ParseInt(fields[2*i], 10, 64)
		if err != nil {
			return l, fmt.Errorf("read lease: %w", err)
		}
		l.runs[i].beaten, l.runs[i].run = time.UnixMilli(ms).UTC(), fields[2*i+1]
	}
	return l, nil
}

// leases reads the leases of nodes.
func (d *Directory) leases(ctx context.Context, nodes ...string) (map[string]lease, error) {
	if len(nodes) == 0 {
		return nil, nil
	}
	pipe := d.client.Pipeline()
	clock := pipe.Time(ctx)
	values := pipe.HMGet(ctx, nodeLeases, nodes...)
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, fmt.Errorf("read leases: %w", err)
	}
	now := clock.Val()
	if d.now != nil {
		now = d.now()
	}
	leases := map[string]lease{}
	for i, value := range values.Val() {
		text, ok := value.(string)
		if !ok {
			continue // the node has no lease
		}
		l, err := parseLease(text, now)
		if err != nil {
			return nil, err
		}
		leases[nodes[i]] = l
	}
	return leases, nil
}

// Beat implements directory.Directory.
func (d *Directory) Beat(ctx context.Context, node, run string) (b directory.Beat, err error) {
	answer, err := beatScript.Run(ctx, d.client, []string{nodeLeases, nodeNotices + run, nodeSince},
		d.clock(), node, run, directory.TTL.Milliseconds()).StringSlice()
	switch {
	case err != nil:
		return b, fmt.Errorf("directory: prolong the lease of %s: %w", node, err)
	case answer[0] == "-1":
		return b, directory.ErrNodeTaken
	}
	b.Known = answer[0] == "1"
	for _, text := range answer[1:] {
		if n, ok := notice(text); ok {
			b.Notices = append(b.Notices, n)
		}
	}
	return b, nil
}

// RequestDrain implements directory.Directory.
func (d *Directory) RequestDrain(ctx context.Context, node string) error {
	leases, err := d.leases(ctx, node)
	if err != nil {
		return fmt.Errorf("directory: ask %s to drain: %w", node, err)
	}
	l, ok := leases[node]
	if !ok || !l.live(l.runs[0].run) {
		return directory.ErrNoNode
	}
	if err := d.send(ctx, node, l.runs[0].run, string(directory.Drain)); err != nil {
		return fmt.Errorf("directory: ask %s to drain: %w", node, err)
	}
	return nil
}
