package domain

import "testing"

// TestEveryProtocolHasItsRow: a row says all there is to know, and a mapping of every
// available protocol can be made and holds claims.
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
		d, err := w.run(CreateMapping{ID: 1001, UserID: 100000001, SourceClientID: 600000000, TargetClientID: 600000000, Protocol: p,
			Parts: Parts{Origin: Origin{LocalPort: 80}, Service: Service{"db", 81}}})
		if err != nil || len(d.Claims) == 0 {
			t.Errorf("a mapping of %s: claims %v, %v", p, d.Claims, err)
		}
	}
}
