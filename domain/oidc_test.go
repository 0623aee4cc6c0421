package domain

import (
	"encoding/json"
	"strings"
	"testing"
)

// sealedSecretExample has the form of a sealed client secret.
var sealedSecretExample = "$oidc-aes256gcm$v=1$" + strings.Repeat("A", 43) + "$" + strings.Repeat("B", 40)

// The client secret of a provider is sealed, never shown, and kept while it is for the
// same client: it goes to no other issuer.
func TestOIDCAccess(t *testing.T) {
	rule := OIDCAccess{Issuer: "https://login.example.org", ClientID: "tunnox", ClientSecret: sealedSecretExample, Domains: []string{"example.org"}}
	w, change := hostWorld(t, Options{Access: &Access{OIDC: &rule}})
	mapping := func() *Mapping { return w.state(MappingStream(1001)).(*Mapping) }
	shown, err := json.Marshal(mapping().Options.Shown(ProtocolHTTP))
	if err != nil || strings.Contains(string(shown), "aes256gcm") || !strings.Contains(string(shown), `"issuer":"https://login.example.org"`) {
		t.Errorf("shown is %s, %v", shown, err)
	}
	before := mapping().Parts()
	if err := change(string(shown)); err != nil || !mapping().Parts().equal(before) {
		t.Errorf("what was shown changes it to %+v, %v", mapping().Access.OIDC, err)
	}
	const start = `{"access":{"oidc":{"issuer":"https://login.example.org","client_id":"tunnox",`
	if err := change(start + `"emails":["ann@example.org"]}}}`); err != nil || mapping().Access.OIDC.ClientSecret != sealedSecretExample || len(mapping().Access.OIDC.Domains) != 0 {
		t.Errorf("a change of who may come in: %+v, %v", mapping().Access.OIDC, err)
	}
	secret := `"client_secret":"` + sealedSecretExample + `"`
	for patch, field := range map[string]string{
		`{"access":{"oidc":{"issuer":"https://evil.example.org","client_id":"tunnox","domains":["*"]}}}`: "access.oidc.client_secret",
		`{"access":{"oidc":{"issuer":"https://login.example.org","client_id":"other","domains":["*"]}}}`: "access.oidc.client_secret",
		start + `"client_secret":"plain","domains":["*"]}}}`:                                             "access.oidc.client_secret",
		start + secret + `}}}`:                   "access.oidc",
		start + secret + `,"emails":["ann"]}}}`:  "access.oidc.emails",
		start + secret + `,"domains":["a@b"]}}}`: "access.oidc.domains",
		`{"access":{"oidc":{"issuer":"ftp://x","client_id":"tunnox",` + secret + `,"domains":["*"]}}}`:                                              "access.oidc.issuer",
		`{"access":{"basic":[{"username":"ann","password":"` + sealedExample + `"}],` + start[len(`{"access":{`):] + secret + `,"domains":["*"]}}}`: "access.oidc",
	} {
		err := change(patch)
		refused, ok := err.(*Error)
		if !ok || refused.Code != CodeInvalid || len(refused.Faults) != 1 || refused.Faults[0].Field != field {
			t.Errorf("%s: %+v", patch, err)
		}
	}
	var f faults
	(&Access{OIDC: &rule}).check(&f, ProtocolTCP, OriginPort)
	if len(f.list) != 1 {
		t.Errorf("a login for a tcp mapping: %v", f.list)
	}
	if err := change(`{"access":{"oidc":{}}}`); err != nil || mapping().Access != nil {
		t.Errorf("emptied it is %+v, %v", mapping().Access, err)
	}

	sealed := func(o Options) (Options, error) {
		return o.Sealed(Seal{Secret: func(issuer, clientID, secret string) (string, error) {
			return issuer + "/" + clientID + "/" + secret, nil
		}})
	}
	plain := rule
	plain.ClientSecret = "s"
	if o, err := sealed(Options{Access: &Access{OIDC: &plain}}); err != nil || o.Access.OIDC.ClientSecret != "https://login.example.org/tunnox/s" {
		t.Errorf("sealed: %+v, %v", o.Access, err)
	}
	plain.ClientSecret = "a\nb"
	if _, err := sealed(Options{Access: &Access{OIDC: &plain}}); CodeOf(err) != CodeInvalid {
		t.Errorf("a secret with a line end: %v", err)
	}
}
