package control

import (
	"strings"
	"testing"

	"github.com/tunnox-net/tunnox/domain"
)

// TestAgentsShareAndSeeTheirOwn: what a client may do over its session about shares and
// other clients ends at its user, whatever the command says.
func TestAgentsShareAndSeeTheirOwn(t *testing.T) {
	p := newPlane(t)
	user, a, b := p.pair()
	stranger := p.user(domain.Limits{})
	theirs := p.client(stranger)
	client := p.dial([]string{p.serve("").address})
	random := strings.Repeat("B", domain.ShareCodeLength)
	sharing := &domain.Sharing{Random: random, Seconds: 60, Share: domain.CreateShare{ID: 4, UserID: stranger, TargetClientID: theirs, MaxUses: 1,
		Protocol: domain.ProtocolTCP, Service: domain.Service{TargetHost: "127.0.0.1", TargetPort: 5432}, Options: domain.Options{HeldBy: domain.HeldByTarget}}}
	made, err := client.Execute(t.Context(), domain.ClientCommand{ClientID: a, Key: "one", Share: sharing})
	must(t, err)
	if h := made.Share; h == nil || h.UserID != user || h.TargetClientID != a || h.ID == 4 || h.Hash != nil || h.ExpiresAt.IsZero() {
		t.Fatalf("shared as %+v", made.Share)
	}
	again, err := client.Execute(t.Context(), domain.ClientCommand{ClientID: a, Key: "one", Share: sharing})
	must(t, err)
	if !again.Duplicate || again.Code != made.Code {
		t.Errorf("a repeat gave %q, the first %q", again.Code, made.Code)
	}

	// Whoever has the code sees what it leads to, and uses nothing by that.
	look, err := client.Execute(t.Context(), domain.ClientCommand{ClientID: theirs, Redeem: &domain.Redemption{Code: made.Code, Look: true}})
	must(t, err)
	if m := look.Mappings[0].State; m.TargetPort != 5432 || m.TargetHost != "" || m.ID != 0 {
		t.Errorf("the code shows %+v", m)
	}
	_, err = client.Execute(t.Context(), domain.ClientCommand{ClientID: theirs, Redeem: &domain.Redemption{Code: domain.ShareCode(made.Share.ID, strings.Repeat("C", domain.ShareCodeLength)), Look: true}})
	if domain.CodeOf(err) != domain.CodeShareNotFound {
		t.Errorf("a wrong code: %v", err)
	}
	_, err = client.Execute(t.Context(), domain.ClientCommand{ClientID: b, Revoke: &domain.RevokeShare{ID: made.Share.ID}})
	if domain.CodeOf(err) != domain.CodeShareNotFound {
		t.Errorf("another client revokes: %v", err)
	}
	_, err = client.Execute(t.Context(), domain.ClientCommand{ClientID: a, Revoke: &domain.RevokeShare{ID: made.Share.ID}})
	must(t, err)
	_, err = client.Execute(t.Context(), domain.ClientCommand{ClientID: a, Share: &domain.Sharing{Random: "short", Share: sharing.Share}})
	if domain.CodeOf(err) != domain.CodeInvalid {
		t.Errorf("a short secret: %v", err)
	}

	// Clients of the same user, in pages, and none of anybody else.
	var ids []int64
	for page := (domain.ClientPage{Limit: 1}); ; {
		r, err := client.Execute(t.Context(), domain.ClientCommand{ClientID: a, Clients: &page})
		must(t, err)
		for _, c := range r.Clients {
			if c.PublicKey != nil {
				t.Errorf("client %d is shown with its key", c.ID)
			}
			ids = append(ids, c.ID)
		}
		if page.After = r.Next; page.After == 0 {
			break
		}
	}
	if len(ids) != 2 || ids[0] != min(a, b) || ids[1] != max(a, b) {
		t.Errorf("clients %v, want %d and %d", ids, a, b)
	}
}
