package projectionstest

import (
	"fmt"
	"maps"
	"reflect"
	"slices"

	"github.com/tunnox-net/tunnox/domain"
)

func (l *Log) clientIDs() []int64 {
	var ids []int64
	for id := range l.streams() {
		if id.Category() == domain.CategoryClient {
			ids = append(ids, id.Number())
		}
	}
	slices.Sort(ids)
	return ids
}

// completes applies records to a view as a forwarder applies the feed: each record
// whose version is the next one. It compares the result with the log's fold at its end.
func completes(v domain.ClientView, log *Log, want *Model) error {
	states, versions := domain.States{}, map[domain.StreamID]domain.Version{}
	put := func(id domain.StreamID, version domain.Version, a domain.Aggregate) {
		states[id], versions[id] = a, version
	}
	client := v.Client.State
	put(domain.ClientStream(client.ID), v.Client.Version, &client)
	for _, m := range v.Mappings {
		put(domain.MappingStream(m.State.ID), m.Version, &m.State)
	}
	for _, u := range v.Users {
		put(domain.UserStream(u.State.ID), u.Version, &u.State)
	}
	for _, r := range log.Records(want.Position)[v.Position:] {
		if states[r.Stream] == nil {
			if r.Stream.Category() != domain.CategoryMapping || r.Version != 1 {
				continue
			}
			states[r.Stream] = &domain.Mapping{}
		}
		if r.Version != versions[r.Stream]+1 {
			continue
		}
		if err := domain.Fold(states[r.Stream], []domain.Record{r}); err != nil {
			return err
		}
		versions[r.Stream] = r.Version
	}
	got := map[int64]domain.Mapping{}
	for _, a := range states {
		if m, ok := a.(*domain.Mapping); ok && m.Live() && m.HasEnd(client.ID) {
			got[m.ID] = *m
		}
	}
	all := maps.Clone(want.Mappings)
	for id, m := range all {
		if !m.HasEnd(client.ID) {
			delete(all, id)
			continue
		}
		if !reflect.DeepEqual(got[id], m.Mapping) {
			return fmt.Errorf("mapping %d is %+v, want %+v", id, got[id], m.Mapping)
		}
	}
	if len(got) != len(all) {
		return fmt.Errorf("%d mappings, want %d", len(got), len(all))
	}
	kept := client.Live() || client.ClaimedAs != 0 // a claimed client is still told its new id
	if w, there := want.Clients[client.ID]; there != kept || there && !reflect.DeepEqual(w.Client, client) {
		return fmt.Errorf("client is %+v, want %+v (kept %v)", client, w.Client, kept)
	}
	return nil
}
