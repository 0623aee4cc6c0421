package main

import (
	"net/netip"
	"strings"
	"testing"
)

const goodPolicy = `
rules:
  - deny: 10.0.0.13:*
  - allow:
      - 10.0.0.0/8:443
      - db.internal:5432
    protocols: tcp
    hours: [mon-fri 00:00-24:00, sat-sun 00:00-24:00]
  - {allow: "unix:/run/app.sock", protocols: [http, tcp]}
`

func TestPolicyFile(t *testing.T) {
	p, err := parsePolicy("policy.yaml", []byte(goodPolicy))
	if err != nil {
		t.Fatal(err)
	}
	for address, want := range map[string]bool{"10.0.0.12:443": true, "10.0.0.13:443": false, "10.0.0.12:80": false, "127.0.0.1:80": false} {
		at := netip.MustParseAddrPort(address)
		if got := p.Allows(at.Addr().String(), at.Addr(), at.Port()); got != want {
			t.Errorf("%s: %v", address, got)
		}
	}
	if _, err := parsePolicy("policy.yaml", []byte("rules: []")); err != nil {
		t.Errorf("nothing may be reached: %v", err)
	}
}

// Each fault is told with its line and the nearest word that is right, all at once.
func TestFaultsOfAPolicyFile(t *testing.T) {
	for text, want := range map[string]string{
		"":                               "p.yaml: it has no rules",
		"rulse:\n  - allow: x":           `p.yaml, line 1: the file has no key "rulse"; did you mean "rules"?`,
		"rules:\n  allow: x":             "p.yaml, line 2: rules must be a list",
		"rules:\n  - allow:80":           "p.yaml, line 2: a rule must be keys with values",
		"rules:\n  - alow: \"*\"":        `p.yaml, line 2: a rule has no key "alow"; did you mean "allow"?`,
		"rules:\n  - hours: 08:00-18:00": "p.yaml, line 2: a rule needs allow or deny",
		"rules:\n  - allow: \"*\"\n    deny: \"*\"":            "p.yaml, line 3: the rule has allow already",
		"rules:\n  - allow: \"*\"\n    allow: \"*\"":           `p.yaml, line 3: the key "allow" stands here twice`,
		"rules:\n  - allow: {a: b}":                            "p.yaml, line 2: allow must be a text, or a list of texts",
		"rules:\n  - allow:":                                   "p.yaml, line 2: allow must be a text, or a list of texts",
		"rules:\n  - allow: []":                                "p.yaml, line 2: allow has nothing in it",
		"rules:\n  - allow:\n    - a:1\n    - [b]":             "p.yaml, line 4: allow must be a text, or a list of texts",
		"rules:\n  - allow: \"*\"\n    protocols: [tcp, htpp]": `p.yaml, line 3: there is no protocol "htpp"; did you mean "http"?`,
		"rules:\n  - allow: \"*\"\n    hours: mon 8-18":        `p.yaml, line 3: hours: "mon 8-18" has no time of day`,
		"rules:\n  - allow: 10.0.0.5":                          `p.yaml, line 2: "10.0.0.5": there is no port`,
		"rules:\n  - deny: unix:app.sock":                      `p.yaml, line 2: "unix:app.sock": the path must be absolute`,
		"rules: [":                                             "p.yaml: line 1:",
	} {
		if _, err := parsePolicy("p.yaml", []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
	if _, err := parsePolicy("p.yaml", []byte("rules:\n  - alow: x\n  - deny: [y:1]\n    hour: z")); strings.Count(err.Error(), "\n") != 1 {
		t.Errorf("not all faults are told at once: %v", err)
	}
}

func FuzzPolicyFile(f *testing.F) {
	f.Add([]byte(goodPolicy))
	f.Add([]byte("rules: [{allow: '*', hours: ['mon-fri 08:00-18:00']}]"))
	f.Fuzz(func(_ *testing.T, text []byte) {
		_, _ = parsePolicy("p.yaml", text)
	})
}
