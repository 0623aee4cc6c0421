package control

import (
	"strings"
	"testing"

	"github.com/tunnox-net/tunnox/domain"
)

// TestAgentsRedeemShares: whoever has the code may listen for the service, also who
// has no account, within their own limits; nobody else, and nobody beyond loopback
// who is nobody.
func TestAgentsRedeemShares(t *testing.T) {
	p := newPlane(t)
	sharer, other := p.user(domain.Limits{}), p.user(domain.Limits{})
	target, theirs := p.client(sharer), p.client(other)
	const anonymous = 200_000_009
	one := int64(1)
	p.submit(domain.RegisterClient{ID: anonymous, PublicKey: make([]byte, 32), Limits: domain.Limits{MaxMappings: &one}})
	random := strings.Repeat("A", domain.ShareCodeLength)
	p.submit(domain.CreateShare{ID: 7, UserID: sharer, Name: "db", Hash: domain.HashShareCode(7, random), TargetClientID: target,
		Protocol: domain.ProtocolTCP, Service: domain.Service{TargetHost: "127.0.0.1", TargetPort: 5432}, MaxUses: 3})
	code := domain.ShareCode(7, random)
	client := p.dial([]string{p.serve("").address})
	redeem := func(who int64, r domain.Redemption) (domain.ClientResult, error) {
		return client.Execute(t.Context(), domain.ClientCommand{ClientID: who, Redeem: &r})
	}

	for name, tt := range map[string]struct {
		who  int64
		r    domain.Redemption
		want domain.Code
	}{
		"no code":                {theirs, domain.Redemption{Code: "open sesame", Mapping: domain.RedeemShare{Origin: domain.Origin{LocalPort: 1}}}, domain.CodeShareNotFound},
		"another code":           {theirs, domain.Redemption{Code: domain.ShareCode(7, strings.Repeat("B", domain.ShareCodeLength)), Mapping: domain.RedeemShare{Origin: domain.Origin{LocalPort: 1}}}, domain.CodeShareNotFound},
		"no port":                {theirs, domain.Redemption{Code: code}, domain.CodeInvalid},
		"nobody":                 {999, domain.Redemption{Code: code, Mapping: domain.RedeemShare{Origin: domain.Origin{LocalPort: 1}}}, domain.CodeClientNotFound},
		"anonymous, to the LAN":  {anonymous, domain.Redemption{Code: code, Mapping: domain.RedeemShare{Origin: domain.Origin{LocalHost: "0.0.0.0", LocalPort: 1}}}, domain.CodeClientNotOwned},
		"anonymous, to the IPv6": {anonymous, domain.Redemption{Code: code, Mapping: domain.RedeemShare{Origin: domain.Origin{LocalHost: "::", LocalPort: 1}}}, domain.CodeClientNotOwned},
	} {
		if _, err := redeem(tt.who, tt.r); domain.CodeOf(err) != tt.want {
			t.Errorf("%s: %v, want %s", name, err, tt.want)
		}
	}

	made, err := redeem(anonymous, domain.Redemption{Code: strings.ToLower(code), Mapping: domain.RedeemShare{Origin: domain.Origin{LocalPort: 8000}}})
	must(t, err)
	if m := made.Mappings[0].State; m.SourceClientID != anonymous || m.TargetClientID != target || m.UserID != sharer ||
		m.Name != "db" || m.LocalHost != "127.0.0.1" || m.TargetPort != 5432 {
		t.Errorf("made %+v", m)
	}
	records, err := p.store.ReadStream(t.Context(), domain.MappingStream(made.Mappings[0].State.ID), 0, 1)
	must(t, err)
	if m := records[0].Meta; m.Actor != domainActor(anonymous) || m.Command != "redeem_share" || m.Allowed != "share code" {
		t.Errorf("recorded as %+v", m)
	}
	_, err = redeem(anonymous, domain.Redemption{Code: code, Mapping: domain.RedeemShare{Origin: domain.Origin{LocalPort: 8001}}})
	wantCode(t, err, domain.CodeQuotaMappings)
	if made, err = redeem(theirs, domain.Redemption{Code: code, Mapping: domain.RedeemShare{Origin: domain.Origin{LocalHost: "0.0.0.0", LocalPort: 8000}, Name: "mine"}}); err != nil || made.Mappings[0].State.Name != "mine" {
		t.Errorf("a user's client: %+v, %v", made, err)
	}
}
