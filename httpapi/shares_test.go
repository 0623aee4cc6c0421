package httpapi_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/httpapi"
)

func TestSharesJoinTwoUsers(t *testing.T) {
	onEach(t, func(t *testing.T, w *world) {
		ann, bob, eve := w.person("ann", "user"), w.person("bob", "user"), w.person("eve", "user")
		desk, laptop, other := w.client(ann.id, "desk"), w.client(bob.id, "laptop"), w.client(eve.id, "other")
		wanted := fields{"target_client_id": desk, "protocol": "tcp", "target_host": "db", "target_port": 5432, "max_uses": 2, "name": "db"}
		bob.do("POST", path("shares"), wanted).fault(404, "client_not_found", "body.target_client_id")
		made := ann.do("POST", path("shares"), wanted).want(201).has(fields{"uses": 0, "max_uses": 2})
		code, id := made.text("code"), made.id("share_id")
		if len(code) < 24 || strings.Contains(w.do("GET", path("events")+"?limit=500", nil).Text, code) {
			t.Errorf("code %s", code)
		}
		redeem := func(p *person, code string, source int64, port int) *answer {
			return p.do("POST", path("shares", "redeem"), fields{"code": code, "source_client_id": source, "local_port": port})
		}
		other32 := map[bool]string{true: "B", false: "A"}[strings.HasSuffix(code, "A")]
		redeem(bob, code[:len(code)-1]+other32, laptop, 80).fault(404, "share_not_found", "body.code")
		redeem(bob, "nonsense", laptop, 80).fault(404, "share_not_found", "body.code")
		redeem(bob, code, other, 80).fault(404, "client_not_found", "body.source_client_id")
		m := redeem(bob, " "+strings.ToLower(code)+" ", laptop, 80).want(201).
			has(fields{"user_id": ann.id, "source_user_id": bob.id, "share_id": id, "name": "db", "target_port": 5432})
		mapping := m.id("mapping_id")

		// The address of a command is for who gave it, and for admins.
		sources := func(answer *answer) (shown []any) {
			var page struct {
				Items []struct{ Meta map[string]any }
			}
			if err := json.Unmarshal([]byte(answer.want(200).Text), &page); err != nil {
				t.Fatal(err)
			}
			for _, item := range page.Items {
				shown = append(shown, item.Meta["source"])
			}
			return shown
		}
		ann.do("POST", path("mappings", mapping, "disable"), nil).want(200)
		ann.do("POST", path("mappings", mapping, "enable"), nil).want(200)
		history := path("mappings", mapping, "history")
		for who, want := range map[string][3]bool{"ann": {false, true, true}, "admin": {true, true, true}} {
			answer := w.do("GET", history, nil)
			if who == "ann" {
				answer = ann.do("GET", history, nil)
			}
			shown := sources(answer)
			if len(shown) != 3 {
				t.Fatalf("%d events: %v", len(shown), shown)
			}
			for i, is := range shown {
				if (is != nil) != want[i] {
					t.Errorf("%s sees the source of event %d: %v", who, i, is)
				}
			}
		}

		// Both see it; the guest may leave it, and change where it listens.
		for _, p := range []*person{ann, bob} {
			if ids := p.do("GET", path("mappings"), nil).want(200).items("mapping_id"); len(ids) != 1 || ids[0] != mapping {
				t.Errorf("%s sees %v", p.name, ids)
			}
		}
		eve.do("GET", path("mappings", mapping), nil).fault(404, "mapping_not_found")
		bob.do("GET", path("mappings", mapping), nil).want(200)
		bob.do("PUT", path("mappings", mapping), fields{"target_port": 22}).fault(422, "invalid", "body.target_port")
		// Nobody decides what another's machine listens on.
		ann.do("PUT", path("mappings", mapping), fields{"local_host": "0.0.0.0", "local_port": 8080}).fault(422, "invalid", "body.local_host", "body.local_port")
		eve.do("PUT", path("mappings", mapping), fields{"local_port": 8080}).fault(404, "mapping_not_found")
		bob.do("PUT", path("mappings", mapping), fields{"local_port": 8081}).want(200).has(fields{"local_port": 8081, "target_port": 5432})
		bob.do("POST", path("mappings", mapping, "disable"), nil).fault(404, "mapping_not_found")
		ann.do("POST", path("mappings", mapping, "disable"), nil).want(200)
		bob.do("DELETE", path("mappings", mapping), nil).want(204)

		if ids := ann.do("GET", path("shares"), nil).want(200).items("share_id"); len(ids) != 1 {
			t.Errorf("shares of ann: %v", ids)
		}
		bob.do("GET", path("shares", id), nil).fault(404, "share_not_found")
		ann.do("GET", path("shares", id), nil).want(200).has(fields{"uses": 1})
		ann.do("DELETE", path("shares", id), nil).want(204)
		redeem(bob, code, laptop, 81).fault(409, "share_ended", "body.code")
		ann.do("POST", path("shares"), fields{"target_client_id": desk, "protocol": "tcp", "target_host": "db", "target_port": 1,
			"expires_at": time.Now().Add(-time.Hour)}).fault(422, "invalid", "body.expires_at")
	})
}

// proof is a claim code of the tests: it is good for the client it names.
type proof struct {
	client int64
	good   bool
}

func (p proof) Client() int64 { return p.client }
func (p proof) Verify([]byte, string, time.Time) error {
	if p.good {
		return nil
	}
	return fmt.Errorf("no")
}

func TestClaims(t *testing.T) {
	var said proof
	w := newWorld(t, func(c *httpapi.Config) {
		c.ParseClaim = func(code string) (httpapi.Claim, error) {
			if code == "nonsense" {
				return nil, fmt.Errorf("no")
			}
			return said, nil
		}
	})
	ann := w.person("ann", "user")
	const anonymous = domain.FirstAnonymousID + 7
	if _, err := w.log.Submit(t.Context(), domain.Submission{Command: domain.RegisterClient{ID: anonymous, Name: "pi", PublicKey: make([]byte, 32)}}); err != nil {
		t.Fatal(err)
	}
	claim := func(p *person) *answer { return p.do("POST", path("clients", "claim"), fields{"claim_code": "x"}) }
	said = proof{anonymous, false}
	claim(ann).fault(403, "claim_refused", "body.claim_code")
	said = proof{anonymous + 1, true} // nobody
	claim(ann).fault(403, "claim_refused", "body.claim_code")
	ann.do("POST", path("clients", "claim"), fields{"claim_code": "nonsense"}).fault(403, "claim_refused", "body.claim_code")
	said = proof{anonymous, true}
	ann.do("POST", path("clients", "claim"), fields{"claim_code": "x", "user_id": 100000099}).fault(404, "user_not_found", "body.user_id")
	id := claim(ann).want(201).has(fields{"client_type": "managed", "user_id": ann.id, "client_name": "pi"}).id("client_id")
	claim(ann).fault(409, "client_claimed", "body.client_id")
	ann.do("GET", path("clients", id), nil).want(200)
	w.do("GET", path("clients", anonymous), nil).fault(404, "client_not_found")
	if ids := w.do("GET", path("clients"), nil).want(200).items("client_id"); len(ids) != 1 {
		t.Errorf("clients: %v", ids)
	}
	// An anonymous client is an admin's to name.
	if _, err := w.log.Submit(t.Context(), domain.Submission{Command: domain.RegisterClient{ID: anonymous + 2, PublicKey: make([]byte, 32)}}); err != nil {
		t.Fatal(err)
	}
	ann.do("POST", path("mappings"), rule(ann.id, id, anonymous+2, 80)).fault(404, "client_not_found", "body.target_client_id")
	w.do("POST", path("mappings"), rule(ann.id, id, anonymous+2, 80)).want(201)
}

func TestPlans(t *testing.T) {
	one := int64(1)
	w := newWorld(t, func(c *httpapi.Config) {
		c.Plans = []httpapi.NamedPlan{{Name: "free", Limits: domain.Limits{MaxClients: &one}}, {Name: "all"}}
	})
	w.do("GET", path("plans"), nil).want(200)
	w.do("POST", path("users"), fields{"username": "x", "email": "x@example.org", "plan": "none"}).fault(422, "invalid", "body.plan")
	ann := w.do("POST", path("users"), fields{"username": "ann", "email": "ann@example.org", "plan": "free"}).want(201).has(fields{"plan": "free"}).id("user_id")
	w.client(ann, "a")
	w.do("POST", path("clients"), fields{"user_id": ann, "client_name": "b"}).fault(403, "quota_clients")
	w.do("PUT", path("users", ann, "plan"), fields{"plan": "all"}).want(200).has(fields{"plan": "all"})
	w.client(ann, "b")
	w.do("PUT", path("users", ann, "plan"), fields{"plan": "no"}).fault(422, "invalid", "body.plan")
}

// TestFilters: pages of what passes are complete and in order, whatever the limit.
func TestFilters(t *testing.T) {
	w := newWorld(t)
	ann, bob := w.user("ann"), w.user("bob")
	a, b := w.client(ann, "a"), w.client(bob, "b")
	var off []int64
	for i := range 9 {
		m := w.mapping(ann, a, a, 1000+i)
		if i%3 == 0 {
			w.do("POST", path("mappings", m, "disable"), nil).want(200)
			off = append(off, m)
		}
	}
	w.mapping(bob, b, b, 1)
	for _, limit := range []int{1, 2, 3, 4, 500} {
		var got []int64
		for after := int64(0); ; {
			page := w.do("GET", fmt.Sprintf("%s?status=disabled&protocol=tcp&user_id=%d&limit=%d&after=%d", path("mappings"), ann, limit, after), nil).want(200)
			got = append(got, page.items("mapping_id")...)
			if page.Body["next"] == nil {
				break
			}
			after = page.id("next")
		}
		if fmt.Sprint(got) != fmt.Sprint(off) {
			t.Errorf("limit %d: %v, want %v", limit, got, off)
		}
	}
	w.do("POST", path("clients", a, "disable"), nil).want(200)
	for query, want := range map[string]int{"status=disabled": 1, "status=offline": 1, "status=online": 0, "type=anonymous": 0, "type=managed": 2,
		fmt.Sprintf("user_id=%d", bob): 1, fmt.Sprintf("user_id=%d&status=disabled", bob): 0} {
		if ids := w.do("GET", path("clients")+"?"+query, nil).want(200).items("client_id"); len(ids) != want {
			t.Errorf("clients %s: %v", query, ids)
		}
	}
	w.do("POST", path("users", bob, "disable"), nil).want(200)
	for query, want := range map[string]int{"status=disabled": 1, "status=active": 1, "role=admin": 0, "role=user": 2} {
		if ids := w.do("GET", path("users")+"?"+query, nil).want(200).items("user_id"); len(ids) != want {
			t.Errorf("users %s: %v", query, ids)
		}
	}
	w.do("GET", path("mappings")+"?status=off", nil).fault(422, "invalid", "query.status")
}
