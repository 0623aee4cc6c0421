package domain

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// OIDCAccess has visitors of a public host log in at an OpenID provider. The log, and
// everybody who reads it, has the client secret only as what package oidcauth makes of it.
type OIDCAccess struct {
	Issuer       string   `json:"issuer,omitempty" maxLength:"255" doc:"URL of the provider, exactly as it names itself" example:"https://login.example.org"`
	ClientID     string   `json:"client_id,omitempty" maxLength:"255" doc:"What the provider calls the client, whose redirect URI is the public URL and then .tunnox/login" example:"tunnox"`
	ClientSecret string   `json:"client_secret,omitempty" maxLength:"255" doc:"Kept sealed and never shown. Left out in a change of neither issuer nor client id: as it was" example:"correct horse"`
	Emails       []string `json:"emails,omitempty" doc:"E-mail addresses that may come in, if the provider has verified them" example:"ann@example.org"`
	Domains      []string `json:"domains,omitempty" doc:"Domains whose e-mail addresses may come in, in the same way; * is everybody whom the provider knows" example:"example.org"`
	Groups       []string `json:"groups,omitempty" doc:"Groups whose members may come in, as the claim groups has them" example:"staff"`
}

const maxOIDCNames = 100 // in each of the lists

// sealedSecret is a client secret as package oidcauth seals it.
var sealedSecret = regexp.MustCompile(`^\$oidc-aes256gcm\$v=1\$[A-Za-z0-9+/]{43}\$[A-Za-z0-9+/]{38,400}$`)

func (o *OIDCAccess) check(f *faults, a *Access, p Protocol, kind OriginKind) {
	if o == nil {
		return
	}
	if p != ProtocolHTTP || kind != OriginHost {
		f.add("access.oidc", "is for mappings of protocol http with a public host: leave it out")
		return
	}
	if len(a.Basic) > 0 {
		f.add("access.oidc", "and access.basic exclude each other: a visitor proves themselves in one way")
	}
	u, err := url.Parse(o.Issuer)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || len(o.Issuer) > 255 || !plainText(o.Issuer) {
		f.add("access.oidc.issuer", "must be the URL of the provider, such as https://login.example.org")
	}
	if o.ClientID == "" || len(o.ClientID) > 255 || !plainText(o.ClientID) {
		f.add("access.oidc.client_id", "must have 1 to 255 bytes, without control characters")
	}
	switch {
	case o.ClientSecret == "":
		f.add("access.oidc.client_secret", "is needed, also after a change of the issuer or the client id")
	case !sealedSecret.MatchString(o.ClientSecret):
		// Whoever hands a command on has sealed it; this keeps a mistake out of the log.
		f.add("access.oidc.client_secret", "was not sealed on its way here: it is set over the REST API")
	}
	for field, names := range map[string][]string{"emails": o.Emails, "domains": o.Domains, "groups": o.Groups} {
		bad := func(s string) bool {
			at := strings.Count(s, "@")
			return s == "" || len(s) > 255 || !plainText(s) || field == "emails" && at != 1 || field == "domains" && at != 0
		}
		if len(names) > maxOIDCNames || slices.ContainsFunc(names, bad) {
			f.add("access.oidc."+field, fmt.Sprintf("must have up to %d names of up to 255 bytes: addresses such as ann@example.org, domains such as example.org", maxOIDCNames))
		}
	}
	if len(o.Emails)+len(o.Domains)+len(o.Groups) == 0 {
		f.add("access.oidc", `must say who may come in: emails, domains or groups; domains ["*"] is everybody whom the provider knows`)
	}
}

// shown is the rule without the client secret.
func (o *OIDCAccess) shown() *OIDCAccess {
	if o == nil {
		return nil
	}
	s := *o
	s.ClientSecret = ""
	return &s
}

// kept is the rule with the client secret that there was, where a change says nothing of
// it. For another issuer, or another client, there was none: a secret goes nowhere else.
func (o *OIDCAccess) kept(was *OIDCAccess) *OIDCAccess {
	if o == nil || was == nil || o.ClientSecret != "" || o.Issuer != was.Issuer || o.ClientID != was.ClientID {
		return o
	}
	next := *o
	next.ClientSecret = was.ClientSecret
	return &next
}

// sealed seals the client secret. A text that looks sealed already is sealed too: only
// what this server has sealed is kept, and nobody is shown it.
func (o *OIDCAccess) sealed(seal SealSecret) (*OIDCAccess, error) {
	if o == nil || o.ClientSecret == "" || seal == nil {
		return o, nil
	}
	if len(o.ClientSecret) > 255 || !plainText(o.ClientSecret) {
		var f faults
		f.add("access.oidc.client_secret", "must have 1 to 255 bytes, without control characters")
		return nil, f.err("The access cannot be as asked.")
	}
	next := *o
	var err error
	if next.ClientSecret, err = seal(o.Issuer, o.ClientID, o.ClientSecret); err != nil {
		return nil, fmt.Errorf("seal a client secret: %w", err)
	}
	return &next, nil
}

// empty reports whether the rule says nothing, as {} in a change.
func (o *OIDCAccess) empty() bool {
	return o == nil || o.Issuer == "" && o.ClientID == "" && o.ClientSecret == "" && len(o.Emails)+len(o.Domains)+len(o.Groups) == 0
}
