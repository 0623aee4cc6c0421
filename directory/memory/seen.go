package memory

import (
	"time"
)

// Seen gives the time at which each client was last seen. A process saves these times
// for its next start, because memory alone loses them.
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

// Recall restores the times that Seen gave to an earlier process. Later times stay.
func (d *Directory) Recall(seen map[int64]time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.now()
	for id, at := range seen {
		p := d.client(id, now)
		p.seen = latest(p.seen, at)
	}
}
