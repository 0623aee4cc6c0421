package domain

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Access says who may come in at a public port or host.
type Access struct {
	Allow []string        `json:"allow,omitempty" doc:"Networks, for example 192.0.2.0/24, and addresses that visitors may come from. Left out: all" example:"192.0.2.0/24"`
	Deny  []string        `json:"deny,omitempty" doc:"Networks and addresses that visitors may not come from, also where allow has them" example:"192.0.2.66"`
	Basic []VisitorAccess `json:"basic,omitempty" doc:"http: usernames and passwords that visitors must have one of (RFC 7617). Left out: none is needed" example:"[{\"username\":\"ann\",\"password\":\"correct horse\"}]"`
	OIDC  *OIDCAccess     `json:"oidc,omitempty" doc:"http: visitors log in at an OpenID provider. Left out: they need not; {}: not any more"`
}

// VisitorAccess is what a visitor proves themselves with. The log, and everybody who
// reads it, has a password only as what package basicauth makes of it.
type VisitorAccess struct {
	Username string `json:"username" maxLength:"255" doc:"A text without a colon" example:"ann"`
	Password string `json:"password,omitempty" maxLength:"255" doc:"Kept as a hash and never shown. Left out in a change: as it was" example:"correct horse"`
}

const (
	maxNetworks     = 100 // in each of the lists
	maxVisitorNames = 20
	maxPassword     = 255 // bytes
)

// sealedPassword is a password as package basicauth seals it, at its one cost. What has
// another cost would let whoever makes a mapping choose what a visitor's guess costs.
var sealedPassword = regexp.MustCompile(`^\$argon2id-ed25519\$v=19\$m=19456,t=2,p=1\$[A-Za-z0-9+/]{22}\$[A-Za-z0-9+/]{43}$`)

func (a *Access) check(f *faults, p Protocol, kind OriginKind) {
	if a == nil {
		return
	}
	if !a.OIDC.empty() {
		a.OIDC.check(f, a, p, kind)
	}
	f.networks("access.allow", a.Allow)
	f.networks("access.deny", a.Deny)
	switch {
	case len(a.Basic) > 0 && p != ProtocolHTTP:
		f.add("access.basic", "is for mappings of protocol http: leave it out")
		return
	case len(a.Basic) > maxVisitorNames:
		f.add("access.basic", fmt.Sprintf("must have up to %d usernames, has %d", maxVisitorNames, len(a.Basic)))
		return
	}
	seen := map[string]bool{}
	for _, v := range a.Basic {
		switch {
		case v.Username == "" || len(v.Username) > maxPassword || !plainText(v.Username) || strings.Contains(v.Username, ":"):
			f.add("access.basic", fmt.Sprintf("a username must have 1 to %d bytes, without colons and control characters", maxPassword))
		case seen[v.Username]:
			f.add("access.basic", fmt.Sprintf("has the username %q twice", v.Username))
		case v.Password == "":
			f.add("access.basic", fmt.Sprintf("needs a password for %q", v.Username))
		case !sealedPassword.MatchString(v.Password):
			// Whoever hands a command on has sealed it; this keeps a mistake out of the log.
			f.add("access.basic", fmt.Sprintf("the password of %q was not sealed on its way here", v.Username))
		}
		seen[v.Username] = true
	}
}

func (f *faults) networks(field string, networks []string) {
	if len(networks) > maxNetworks {
		f.add(field, fmt.Sprintf("must have up to %d networks, has %d", maxNetworks, len(networks)))
		return
	}
	for _, text := range networks {
		if _, err := parseNetwork(text); err != nil {
			f.add(field, fmt.Sprintf("%q is no network such as 192.0.2.0/24, and no IP address", clipped(text)))
		}
	}
}

// clipped bounds what an answer repeats of a request.
func clipped(s string) string {
	const most = 60
	if len(s) > most {
		s = s[:most]
	}
	return strings.ToValidUTF8(s, "?")
}

func plainText(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}

// parseNetwork reads a network, or an address, which is a network of one.
func parseNetwork(text string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(text); err == nil && addr.Zone() == "" {
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	network, err := netip.ParsePrefix(text)
	if err == nil && network.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("%s mixes IPv4 and IPv6", text)
	}
	return network, err
}

// Admits reports whether a visitor may come from an address. It holds for a mapping
// without rules too.
func (a *Access) Admits(from netip.Addr) bool {
	if a == nil || len(a.Allow)+len(a.Deny) == 0 {
		return true
	}
	from = from.Unmap().WithZone("")
	within := func(networks []string) bool {
		return slices.ContainsFunc(networks, func(text string) bool {
			network, err := parseNetwork(text)
			return err == nil && network.Contains(from)
		})
	}
	return from.IsValid() && !within(a.Deny) && (len(a.Allow) == 0 || within(a.Allow))
}

// shown is the access without what passwords are checked with.
func (a *Access) shown() *Access {
	if a == nil || len(a.Basic) == 0 && a.OIDC == nil {
		return a
	}
	s := &Access{Allow: a.Allow, Deny: a.Deny, OIDC: a.OIDC.shown()}
	for _, v := range a.Basic {
		s.Basic = append(s.Basic, VisitorAccess{Username: v.Username})
	}
	return s
}

// kept is the access with the passwords that there were, where a change says nothing of
// them.
func (a *Access) kept(was *Access) *Access {
	if a == nil || was == nil {
		return a
	}
	a = &Access{Allow: a.Allow, Deny: a.Deny, Basic: a.Basic, OIDC: a.OIDC.kept(was.OIDC)}
	return a.each(func(v VisitorAccess) VisitorAccess {
		i := slices.IndexFunc(was.Basic, func(w VisitorAccess) bool { return w.Username == v.Username })
		if v.Password == "" && i >= 0 {
			v.Password = was.Basic[i].Password
		}
		return v
	})
}

func (a *Access) each(do func(VisitorAccess) VisitorAccess) *Access {
	next := &Access{Allow: a.Allow, Deny: a.Deny, OIDC: a.OIDC}
	for _, v := range a.Basic {
		next.Basic = append(next.Basic, do(v))
	}
	return next
}

// tidy gives nil for access without a rule.
func (a *Access) tidy() *Access {
	if a == nil || len(a.Allow)+len(a.Deny)+len(a.Basic) == 0 && a.OIDC.empty() {
		return nil
	}
	if a.OIDC != nil && a.OIDC.empty() {
		return &Access{Allow: a.Allow, Deny: a.Deny, Basic: a.Basic}
	}
	return a
}

// Seal makes of secrets what may be kept.
type Seal struct {
	Password func(username, password string) (string, error) // slow
	Secret   SealSecret                                      // nil: clients of providers cannot be set here
}

// SealSecret seals the secret of a client at an OpenID provider.
type SealSecret func(issuer, clientID, secret string) (string, error)

// Sealed gives the options with every password of visitors sealed. Whoever hands on a
// command with options calls it first: a decision has neither dice nor time for it.
func (o Options) Sealed(seal Seal) (Options, error) {
	var err error
	o.Access, err = o.Access.sealed(seal)
	return o, err
}

// sealed seals the passwords that are not. No more are sealed than there may be.
func (a *Access) sealed(seal Seal) (*Access, error) {
	if a == nil || len(a.Basic) > maxVisitorNames {
		return a, nil // the check refuses the second
	}
	rule, err := a.OIDC.sealed(seal.Secret)
	if err != nil {
		return nil, err
	}
	var f faults
	var failed error
	next := a.each(func(v VisitorAccess) VisitorAccess {
		switch {
		case failed != nil || v.Password == "" || sealedPassword.MatchString(v.Password):
		case len(v.Password) > maxPassword || !plainText(v.Password):
			f.add("access.basic", fmt.Sprintf("a password must have 1 to %d bytes, without control characters", maxPassword))
		default:
			v.Password, failed = seal.Password(v.Username, v.Password)
		}
		return v
	})
	if failed != nil {
		return nil, fmt.Errorf("seal a password: %w", failed)
	}
	next.OIDC = rule
	return next, f.err("The access cannot be as asked.")
}

// Sealed is the same for a change. A patch that cannot be read stays, for who decides
// to refuse it.
func (p Patch) Sealed(seal Seal) (Patch, error) {
	raw, ok := p.get("access")
	if !ok {
		return p, nil
	}
	var change Options
	var f faults
	if f.patch(&change, Patch{"access": raw}); len(f.list) > 0 || change.Access == nil {
		return p, nil
	}
	access, err := change.Access.sealed(seal)
	if err != nil {
		return nil, err
	}
	next := Patch{}
	for name, value := range p {
		if !strings.EqualFold(name, "access") {
			next[name] = value
		}
	}
	next["access"] = PatchOf(Options{Access: access})["access"]
	return next, nil
}
