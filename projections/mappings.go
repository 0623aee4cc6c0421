package projections

import (
	"context"
	"time"

	"github.com/tunnox-net/tunnox/domain"
)

// The read model of mappings: a row for each live mapping, the list of all, of
// each user's, of those each client is source or target of, of those with a
// public port, and of those each public host has.

// AllMappings lists every live mapping.
const AllMappings Index = "mappings"

// MappingsOfUser lists the live mappings a user takes part in: those that belong
// to the user, and those of others that end at a client of the user.
func MappingsOfUser(userID int64) Index { return numbered("mappings-of-user", userID) }

// MappingsOfClient lists the live mappings a client is source or target of.
func MappingsOfClient(clientID int64) Index { return numbered("mappings-of-client", clientID) }

// MappingsWithPort lists the live mappings that have a public port.
const MappingsWithPort Index = "mappings-with-port"

// MappingsHeld lists the live mappings that end with somebody's agent.
const MappingsHeld Index = "mappings-held"

// MappingsOfHost lists the live mappings that a public host leads to.
func MappingsOfHost(name string) Index { return Index("mappings-of-host-" + name) }

func (r *MappingRow) versions() *Versions { return &r.Versions }

func (r *MappingRow) fold(e domain.Event, at time.Time) { r.Mapping.Apply(e, at) }

func (r *MappingRow) live() bool { return r.Mapping.Live() }

func (r *MappingRow) indexes() []Index {
	all := []Index{AllMappings}
	for _, client := range r.Ends() {
		all = append(all, MappingsOfClient(client))
	}
	if r.PublicPort.First != 0 {
		all = append(all, MappingsWithPort)
	}
	if r.HeldBy != "" {
		all = append(all, MappingsHeld)
	}
	if r.PublicHost != "" {
		all = append(all, MappingsOfHost(r.PublicHost))
	}
	for _, user := range r.Users() {
		all = append(all, MappingsOfUser(user))
	}
	return all
}

func (r *MappingRow) takesAlong() (Key, bool) { return Key{}, false }

// Mapping gives a live mapping.
func (r *Reader) Mapping(ctx context.Context, id int64) (row MappingRow, ok bool, err error) {
	return get[MappingRow](ctx, r, Key{Mappings, id})
}

// Mappings lists the mappings of an index, [AllMappings], [MappingsOfUser],
// [MappingsOfClient], [MappingsWithPort], [MappingsHeld] or [MappingsOfHost], with an id above after; next is
// 0 at the end, else what to pass as after for the next page.
func (r *Reader) Mappings(ctx context.Context, index Index, after int64, limit int) (rows []MappingRow, next int64, err error) {
	return list[MappingRow](ctx, r.store, Mappings, index, after, limit)
}
