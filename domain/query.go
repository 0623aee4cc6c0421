package domain

import (
	"maps"
	"slices"
)

// Query selects records of the log. A field that is not set does not restrict.
type Query struct {
	After  Position // records after this position
	Before Position // records before this position; 0 = to the end of the log
	Newest bool     // in falling order of position instead of rising

	Subject StreamID // of one event stream
	Owner   int64    // of one account
	Actor   string   // of one actor, as in [Metadata.Actor]
	Names   []string // of these events
}

// Selects reports whether the query wants a record.
func (q Query) Selects(r Record) bool {
	return r.Position > q.After && (q.Before == 0 || r.Position < q.Before) &&
		(q.Subject == "" || r.Stream == q.Subject) &&
		(q.Owner == 0 || r.Owner == q.Owner) &&
		(q.Actor == "" || r.Meta.Actor == q.Actor) &&
		(len(q.Names) == 0 || slices.Contains(q.Names, r.Name))
}

// EventNames gives the names of all events this version knows, sorted.
func EventNames() []string { return slices.Sorted(maps.Keys(codecs)) }
