package forwarder

import (
	"slices"
	"testing"

	"github.com/tunnox-net/tunnox/domain"
)

// Targets that answered go before those that did not, those that are connected here
// before others, and of these the least loaded by weight.
func TestTheBestTargetFirst(t *testing.T) {
	m := &mappingRoute{live: map[*forward]struct{}{}}
	m.State.Protocol = domain.ProtocolTCP
	m.State.Targets = []domain.Target{{ClientID: 1, Target: "a:1", Weight: 3}, {ClientID: 2, Target: "b:1"}, {ClientID: 3, Target: "unix:/c"}}
	r := &routes{clients: map[int64]*clientRoute{1: {}, 2: {}}}
	order := func() (clients []int64) {
		for _, c := range r.choices(m, 0) {
			clients = append(clients, c.client)
		}
		return clients
	}
	at := func(client int64) choice {
		all := r.choices(m, 0)
		return all[slices.IndexFunc(all, func(c choice) bool { return c.client == client })]
	}
	want := func(when string, clients ...int64) {
		t.Helper()
		if got := order(); !slices.Equal(got, clients) {
			t.Errorf("%s: %v, want %v", when, got, clients)
		}
	}
	want("at first", 1, 2, 3)
	if c := at(3); c.index != 3 || c.shape != (shape{"/c", domain.CarriedUnix}) {
		t.Errorf("the third is asked for as %+v", c)
	}
	served := map[int64]int{}
	var open []*forward
	for range 12 {
		c := r.choices(m, 0)[0]
		f := &forward{mapping: m}
		m.live[f] = struct{}{}
		r.choose(f, c)
		r.answered(c, true)
		served[c.client]++
		open = append(open, f)
	}
	if served[1] != 9 || served[2] != 3 {
		t.Errorf("12 streams are at %v, want 9 and 3", served)
	}
	for _, f := range open {
		f.lean(nil)
	}
	if a, b := at(1).load.live, at(2).load.live; a != 0 || b != 0 {
		t.Errorf("after the end of all streams %d and %d are left", a, b)
	}
	if !r.silent(at(1)) || r.silent(at(1)) {
		t.Error("not one looks whether the first answers again")
	}
	want("the first is silent", 2, 3, 1)
	if !r.answered(at(1), false) {
		t.Error("nobody hears that the first answers again")
	}
	delete(r.clients, 1)
	want("the first is elsewhere, and had more", 2, 3, 1)
	m.State.Targets = m.State.Targets[:1]
	if all := r.choices(m, 0); all != nil {
		t.Errorf("of one target there is a choice: %v", all)
	}
}
