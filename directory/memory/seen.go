package memory

import (
	"time"
)

// Seen gives when each client was seen last, for a process that keeps it for its next
// start: memory alone forgets it.
func (d *Directory) Seen() map[int64]time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.now()
	all := make(map[int64]time.Time, len(d.clients))
	for id, p := range d.clients {
		seen := p.seen
		for _, at := range p.places {
			if at.ended == "" && at.expires.After(now) {
				seen = latest(seen, d.beaten(at.session))
			}
		}
		if !seen.IsZero() {
			all[id] = seen
		}
	}
	return all
}

// Recall takes what Seen gave to an earlier process. What was seen since stands.
func (d *Directory) Recall(seen map[int64]time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.now()
	for id, at := range seen {
		p := d.client(id, now)
		p.seen = latest(p.seen, at)
	}
}
