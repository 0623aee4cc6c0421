package domain

import "testing"

// TestEveryProtocolHasItsRow: a row says all there is to know, and a mapping of every
// available protocol can be made, from where its connections may come, and holds the
// claim of a listener or what is public.
func TestEveryProtocolHasItsRow(t *testing.T) {
	if len(Protocols()) == 0 {
		t.Fatal("no protocol is available")
	}
	for _, row := range protocols {
		if row.check == nil || row.claims == nil || len(row.origins) == 0 {
			t.Errorf("the row of %s is not complete", row.name)
		}
		if !row.name.Known() || row.name.Available() != row.available || (row.name.Unavailable() == nil) != row.available {
			t.Errorf("%s is not what its row says", row.name)
		}
	}
	if p := Protocol("gopher"); p.Known() || p.Available() || p.Unavailable() != nil {
		t.Error("an unknown protocol has a row")
	}
	for _, p := range Protocols() {
		w := newWorld()
		for _, line := range []string{"create_user id=100000001 username=ann email=a@example.org", "create_client id=600000000 user=100000001 name=a key=1"} {
			if err := w.given(line); err != nil {
				t.Fatal(err)
			}
		}
		for i, kind := range p.row().origins {
			c := CreateMapping{ID: 1001 + int64(i), UserID: 100000001, TargetClientID: 600000000, Protocol: p,
				Parts: Parts{Service: Service{TargetHost: "db", TargetPort: 81}}}
			if p == ProtocolSOCKS5 {
				c.Service = Service{} // each client names its own
			}
			if kind == OriginAgent {
				c.SourceClientID, c.LocalPort = 600000000, 80
			}
			d, err := w.run(c.Offered(PublicOffer{Known: true, Ports: []PortRange{{1, 9}}, Draw: []int{1}, Domains: map[Protocol][]string{p: {"t.example.org"}}, Labels: []string{"otter"}}))
			m, _ := w.state(MappingStream(c.ID)).(*Mapping)
			if err != nil || m.OriginKind() != kind || (len(d.Claims) > 0) != (kind == OriginAgent) || (len(m.publicStreams()) > 0) == (kind == OriginAgent) {
				t.Errorf("a mapping of %s at %s: %+v, claims %v, %v", p, kind.where(), m, d.Claims, err)
			}
		}
	}
}
