package eventstore

import (
	"container/list"

	"github.com/tunnox-net/tunnox/domain"
)

// folded is an event stream folded up to a version.
type folded struct {
	state   domain.Aggregate
	version domain.Version
}

// cache holds event streams folded to a committed state, never to a planned one. The
// least recently used entries are dropped first.
type cache struct {
	limit   int
	entries map[domain.StreamID]*list.Element
	order   *list.List // of *cacheEntry, the most recently used first
}

type cacheEntry struct {
	id domain.StreamID
	folded
}

func newCache(limit int) *cache {
	return &cache{limit: limit, entries: map[domain.StreamID]*list.Element{}, order: list.New()}
}

// get gives the cached state of a stream. States are shared and never changed: events
// are applied to a clone.
func (c *cache) get(id domain.StreamID) (folded, bool) {
	e, ok := c.entries[id]
	if !ok {
		return folded{}, false
	}
	c.order.MoveToFront(e)
	return e.Value.(*cacheEntry).folded, true
}

// put stores f, unless the cached state is as new as f.
func (c *cache) put(id domain.StreamID, f folded) {
	if e, ok := c.entries[id]; ok {
		c.order.MoveToFront(e)
		if entry := e.Value.(*cacheEntry); entry.version < f.version {
			entry.folded = f
		}
		return
	}
	c.entries[id] = c.order.PushFront(&cacheEntry{id: id, folded: f})
}

// advance applies records to the cached state if they continue it. It reports whether
// the entry is now at the last of the records.
func (c *cache) advance(id domain.StreamID, records []domain.Record) (bool, error) {
	e, ok := c.entries[id]
	if !ok {
		return false, nil
	}
	entry := e.Value.(*cacheEntry)
	if records[0].Version != entry.version+1 {
		return entry.version >= records[len(records)-1].Version, nil
	}
	state := entry.state.Clone()
	if err := domain.Fold(state, records); err != nil {
		return false, err
	}
	entry.folded = folded{state: state, version: records[len(records)-1].Version}
	return true, nil
}

// drop removes a stream from the cache.
func (c *cache) drop(id domain.StreamID) {
	if e, ok := c.entries[id]; ok {
		delete(c.entries, id)
		c.order.Remove(e)
	}
}

// trim drops the entries beyond the limit. put does not do this, so that a command can
// be decided that reads more streams than the cache holds.
func (c *cache) trim() {
	for c.order.Len() > c.limit {
		e := c.order.Back()
		delete(c.entries, e.Value.(*cacheEntry).id)
		c.order.Remove(e)
	}
}
