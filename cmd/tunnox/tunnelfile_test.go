package main

import (
	"fmt"
	"strings"
	"testing"
)

const goodTunnels = `
tunnels:
  web: {tcp: 3000, port: 20005}
  site: {http: "http://127.0.0.1:3000/", host: Shop}
  game: {udp: "192.168.1.2:34197", keep: true}
  db:
    forward: 5433
    to: datacentre:5432
  notes:
    expose: 8080
    expires: 2d
    uses: 3
  shop:
    http: 3000
    basic: [ann:correct horse, "bob:a:b"]
    basic_file: testdata/visitors
    allow: 192.0.2.0/24
    deny: [192.0.2.1, 192.0.2.2]
    host_header: localhost
    strip_prefix: /app
    request_headers: {X-A: 1, X-B: , X-C: ""}
    response_headers: {X-D: "a, b"}
  closed: {tcp: 22, allow: [10.0.0.0/8]}
`

func sprint(s spec, keep bool) string {
	return fmt.Sprintln(s.wish.Kind, s.wish.Protocol, s.wish.Parts, keep)
}

func TestTunnelsOfAFile(t *testing.T) {
	all, err := parseTunnels("t.yaml", []byte(goodTunnels))
	if err != nil || len(all) != 7 {
		t.Fatalf("%v, %v", all, err)
	}
	for name, want := range map[string]string{
		"web":   "public tcp map[name:web public_port:20005 target_host:127.0.0.1 target_port:3000] false",
		"site":  "public http map[name:site public_host:shop target_host:127.0.0.1 target_port:3000] false",
		"game":  "public udp map[name:game public_port:0 target_host:192.168.1.2 target_port:34197] true",
		"db":    "forward tcp map[local_port:5433 name:db target_host:127.0.0.1 target_port:5432] false",
		"notes": "expose tcp map[name:notes target_host:127.0.0.1 target_port:8080] false",
		"shop": "public http map[access:map[allow:[192.0.2.0/24] basic:[{ann correct horse} {bob a:b} {eve x}] deny:[192.0.2.1 192.0.2.2]] " +
			"http:map[host_header:localhost request_headers:map[remove:[X-B X-C] set:map[X-A:1]] response_headers:map[set:map[X-D:a, b]] strip_prefix:/app] name:shop target_host:127.0.0.1 target_port:3000] false",
		"closed": "public tcp map[access:map[allow:[10.0.0.0/8]] name:closed public_port:0 target_host:127.0.0.1 target_port:22] false",
	} {
		got, keep, err := all[name].spec(name, func() string { return "" })
		if text := strings.TrimSpace(sprint(got, keep)); err != nil || text != want {
			t.Errorf("%s is %s, %v", name, text, err)
		}
	}
}

// Each fault is told with its line and the nearest word that is right, all at once.
func TestFaultsOfATunnelFile(t *testing.T) {
	for text, want := range map[string]string{
		"":                          "t.yaml: it has no tunnels",
		"tunnels: {}":               "t.yaml: it has no tunnels",
		"tunels:\n  web: {tcp: 1}":  `t.yaml, line 1: the file has no key "tunels"; did you mean "tunnels"?`,
		"tunnels:\n  web: {tpc: 1}": `t.yaml, line 2: "web" has no key "tpc"; did you mean "tcp"?`,
		"tunnels:\n  web:\n    tcp: 1\n    prot: 2":               `t.yaml, line 4: "web", which is tcp, has no key "prot"; did you mean "port"?`,
		"tunnels:\n  web: {tcp: 1, to: x}":                        `t.yaml, line 2: "web", which is tcp, has no key "to"; it has port, keep, allow, deny`,
		"tunnels:\n  web: {tcp: 1, basic: a:b}":                   `t.yaml, line 2: "web", which is tcp, has no key "basic"; it has port, keep, allow, deny`,
		"tunnels:\n  web:\n    http: 1\n    basic: [secret]":      `t.yaml, line 4: basic: want USER:PASSWORD`,
		"tunnels:\n  web:\n    http: 1\n    allow: {a: b}":        `t.yaml, line 4: allow must be one value or a list of them`,
		"tunnels:\n  web: {http: 1, host_header: [a]}":            `t.yaml, line 2: host_header must be one value`,
		"tunnels:\n  web: {http: 1, request_headers: [a]}":        `t.yaml, line 2: request_headers must be keys with values`,
		"tunnels:\n  web: {http: 1, basic_file: none}":            `t.yaml, line 2: basic_file: open none: no such file`,
		"tunnels:\n  web: {http: 1, alow: a}":                     `t.yaml, line 2: "web", which is http, has no key "alow"; did you mean "allow"?`,
		"tunnels:\n  web: {tcp: 1, udp: 1}":                       `t.yaml, line 2: "web" is tcp already and cannot be udp too`,
		"tunnels:\n  web: {tcp: 1}\n  web: {tcp: 2}":              `t.yaml, line 3: the tunnel "web" stands here a second time`,
		"tunnels:\n  web: {port: 1}":                              `t.yaml, line 2: "web" does not say what it is: want one of expose, forward, http, socks, tcp, tls, udp`,
		"tunnels:\n  web: 3000":                                   `t.yaml, line 2: "web" must be keys with values`,
		"tunnels:\n  web: {tcp: [1]}":                             `t.yaml, line 2: tcp must be one value`,
		"tunnels:\n  web: {tcp: many}":                            `t.yaml, line 2: web: "many" is no service: the port is a number from 1 to 65535`,
		"tunnels:\n  web: {tcp: 1, port: x}":                      `t.yaml, line 2: web: port: want a number up to 65535, is "x"`,
		"tunnels:\n  web: {http: \"http://h/a\"}":                 `t.yaml, line 2: web: "http://h/a": want the service without a path`,
		"tunnels:\n  web: {http: ./nothing-here}":                 `t.yaml, line 2: web: there is no directory`,
		"tunnels:\n  web: {http: 80, listing: true}":              `t.yaml, line 2: web: "80" is no directory`,
		"tunnels:\n  web: {http: ., listing: 1}":                  `t.yaml, line 2: web: listing: want true or false, is "1"`,
		"tunnels:\n  web: {tcp: \"file:/srv\"}":                   `t.yaml, line 2: web: "file:/srv": a directory is served over http only`,
		"tunnels:\n  web: {udp: \"unix:/run/a\"}":                 `t.yaml, line 2: web: "unix:/run/a" is a unix socket`,
		"tunnels:\n  web: {tcp: 1, keep: maybe}":                  `t.yaml, line 2: web: keep: want true or false, is "maybe"`,
		"tunnels:\n  db: {forward: 5433}":                         `t.yaml, line 2: db: to is missing`,
		"tunnels:\n  db: {forward: 1, to: a:1, encryption: x}":    `t.yaml, line 2: db: the encryption "x": want e2e, from agent to agent, or transport`,
		"tunnels:\n  db: {http: 1, encryption: e2e}":              `t.yaml, line 2: "db", which is http, has no key "encryption"`,
		"tunnels:\n  db: {forward: 1, to: a:1, protocol: x}":      `t.yaml, line 2: db: protocol: want tcp or udp, is "x"`,
		"tunnels:\n  db: {expose: 1, expires: never}":             `t.yaml, line 2: db: expires: must be more than 0`,
		"tunnels:\n  web: {http: \"https://h:1\", inspect: true}": `t.yaml, line 2: web: what passes to an https service`,
		"tunnels:\n  web: {http: \"h2c://h:1\", inspect: true}":   `t.yaml, line 2: web: the inspector reads HTTP/1.1`,
		"tunnels:\n  web: {http: 1, inspect: 2}":                  `t.yaml, line 2: web: inspect: want true or false, is "2"`,
		"tunnels:\n  web: {http: \"ftp://h:1\"}":                  `t.yaml, line 2: web: "ftp://h:1": services are spoken to over http, https or h2c`,
		"tunnels: [":                                              "t.yaml: line 1:",
	} {
		all, err := parseTunnels("t.yaml", []byte(text))
		if err == nil || all != nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
	if _, err := parseTunnels("t.yaml", []byte("tunnels:\n  a: {tcp: x}\n  b: {tcp: y}")); strings.Count(err.Error(), "\n") != 1 {
		t.Errorf("of two faults is told %v", err)
	}
}

func FuzzTunnelFile(f *testing.F) {
	f.Add([]byte(goodTunnels))
	f.Add([]byte("tunnels: {a: {tcp: 1, tcp: 2}}"))
	f.Add([]byte("a: &a [*a]"))
	f.Fuzz(func(t *testing.T, text []byte) {
		all, err := parseTunnels("t.yaml", text)
		if (err == nil) != (len(all) > 0) {
			t.Errorf("%d tunnels, %v", len(all), err)
		}
		for name, e := range all {
			if _, _, err := e.spec(name, func() string { return "" }); err != nil {
				t.Errorf("%s passed, and is refused: %v", name, err)
			}
		}
	})
}

func TestTextOfOthersStaysOnItsLine(t *testing.T) {
	for text, want := range map[string]string{
		"laptop":          "laptop",
		"Büro 東京":         "Büro 東京",
		"a\x1b[2Jb":       "a?[2Jb",
		"a\nready: x":     "a?ready: x",
		"a\u202eevil":     "a?evil",
		"a\u2066b\u2069":  "a?b?",
		"a\u2028b\u0085c": "a?b?c",
		"a\u200bb":        "a?b",
	} {
		if got := oneLine(text); got != want {
			t.Errorf("%q is shown as %q, want %q", text, got, want)
		}
	}
}

// A web service is named as people write it.
func TestServicesOfWebsites(t *testing.T) {
	for service, want := range map[string]string{
		"3000":                  "map[target_host:127.0.0.1 target_port:3000]",
		"nas:8080":              "map[target_host:nas target_port:8080]",
		"http://nas":            "map[target_host:nas target_port:80]",
		"http://nas:8080/":      "map[target_host:nas target_port:8080]",
		"https://nas":           "map[target_host:nas target_port:443 target_scheme:https]",
		"https://[fd12::1]":     "map[target_host:fd12::1 target_port:443 target_scheme:https]",
		"h2c://[fd12::1]:50051": "map[target_host:fd12::1 target_port:50051 target_scheme:h2c]",
		"unix:/run/app.sock":    "map[target:unix:/run/app.sock]",
	} {
		parts, err := website{service: service}.parts()
		if got := fmt.Sprint(parts); err != nil || got != want {
			t.Errorf("%s is %s, want %s, %v", service, got, want, err)
		}
	}
	for _, wrong := range []string{"https://nas/path", "ftp://nas", "https://", "https://nas:99999", "http://[fd12::1"} {
		if parts, err := (website{service: wrong}).parts(); err == nil {
			t.Errorf("%s is %v", wrong, parts)
		}
	}
}
