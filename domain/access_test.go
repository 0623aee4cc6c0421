package domain

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
)

func TestAccessAdmits(t *testing.T) {
	rules := &Access{Allow: []string{"192.0.2.0/24", "2001:db8::/32", "198.51.100.7"}, Deny: []string{"192.0.2.66", "2001:db8:1::/48"}}
	for text, want := range map[string]bool{"192.0.2.1": true, "::ffff:192.0.2.1": true, "192.0.2.66": false, "::ffff:192.0.2.66": false,
		"198.51.100.7": true, "198.51.100.8": false, "2001:db8::1": true, "2001:db8:1::1": false, "fe80::1%eth0": false} {
		if got := rules.Admits(netip.MustParseAddr(text)); got != want {
			t.Errorf("%s is admitted: %v, want %v", text, got, want)
		}
	}
	var none *Access
	if !none.Admits(netip.Addr{}) || rules.Admits(netip.Addr{}) {
		t.Error("an address that is not known is admitted where there are rules, or refused where there are none")
	}
	if denied := (&Access{Deny: []string{"0.0.0.0/0"}}); denied.Admits(netip.MustParseAddr("10.0.0.1")) || !denied.Admits(netip.MustParseAddr("::1")) {
		t.Error("a network of all of IPv4 is not that")
	}
}

// hostWorld has a mapping 1001 with a public host and the given options.
func hostWorld(t *testing.T, options Options) (w *world, change func(patch string) error) {
	t.Helper()
	w = newWorld()
	for _, line := range []string{"create_user id=100000001 username=ann email=a@example.org", "create_client id=600000000 user=100000001 name=a key=1"} {
		if err := w.given(line); err != nil {
			t.Fatal(err)
		}
	}
	offer := PublicOffer{Known: true, Domains: map[Protocol][]string{ProtocolHTTP: {"t.example.org"}}}
	if _, err := w.run(CreateMapping{ID: 1001, UserID: 100000001, TargetClientID: 600000000, Protocol: ProtocolHTTP, Parts: Parts{
		Origin: Origin{PublicHost: "otter"}, Service: Service{TargetHost: "127.0.0.1", TargetPort: 80}, Options: options}}.Offered(offer)); err != nil {
		t.Fatal(err)
	}
	return w, func(patch string) error {
		var p Patch
		if err := json.Unmarshal([]byte(patch), &p); err != nil {
			t.Fatal(err)
		}
		_, err := w.run(ChangeMapping{ID: 1001, Patch: p})
		return err
	}
}

// A change that sends back what was read keeps passwords, and what is shown has none.
func TestAccessOfAMapping(t *testing.T) {
	options := optionsOf(ProtocolHTTP, OriginHost)
	options.Files = nil // the target is no directory
	w, change := hostWorld(t, options)
	mapping := func() *Mapping { return w.state(MappingStream(1001)).(*Mapping) }
	shown, err := json.Marshal(mapping().Options.Shown(ProtocolHTTP))
	if err != nil || strings.Contains(string(shown), "argon2id") || !strings.Contains(string(shown), `"username":"ann"`) {
		t.Errorf("shown is %s, %v", shown, err)
	}
	before := mapping().Parts()
	if err := change(string(shown)); err != nil || !mapping().Parts().equal(before) {
		t.Errorf("what was shown changes it to %+v, %v", mapping().Access, err)
	}
	if err := change(`{"access":{"basic":[{"username":"bob"}]}}`); err == nil {
		t.Error("a username without a password is taken")
	}
	if err := change(`{"access":{"allow":[],"basic":[]},"http":{"request_headers":{"set":{}}}}`); err != nil || mapping().Access != nil || mapping().HTTP != nil {
		t.Errorf("emptied it is %+v %+v, %v", mapping().Access, mapping().HTTP, err)
	}
}

// What no mapping may have is refused with the field it stands in.
func TestRefusedAccess(t *testing.T) {
	_, change := hostWorld(t, Options{})
	for patch, field := range map[string]string{
		`{"access":{"allow":["192.0.2.0/33"]}}`:                                              "access.allow",
		`{"access":{"deny":["::ffff:192.0.2.0/120"]}}`:                                       "access.deny",
		`{"access":{"deny":["fe80::1%eth0"]}}`:                                               "access.deny",
		`{"access":{"basic":[{"username":"a:b","password":"` + sealedExample + `"}]}}`:       "access.basic",
		`{"access":{"basic":[{"username":"ann","password":"plain"}]}}`:                       "access.basic",
		`{"access":{"basic":[{"username":"ann","password":"$argon2id$v=19$m=9,t=9,p=9$"}]}}`: "access.basic",
		`{"http":{"host_header":"a b"}}`:                                                     "http.host_header",
		`{"http":{"host_header":"a:b"}}`:                                                     "http.host_header",
		`{"http":{"strip_prefix":"/a/"}}`:                                                    "http.strip_prefix",
		`{"http":{"strip_prefix":"/"}}`:                                                      "http.strip_prefix",
		`{"http":{"request_headers":{"set":{"Connection":"close"}}}}`:                        "http.request_headers",
		`{"http":{"request_headers":{"remove":["Transfer-Encoding"]}}}`:                      "http.request_headers",
		`{"http":{"request_headers":{"set":{"x-forwarded-for":"1.2.3.4"}}}}`:                 "http.request_headers",
		`{"http":{"request_headers":{"set":{"Host":"a"}}}}`:                                  "http.request_headers",
		`{"http":{"request_headers":{"set":{"A B":"c"}}}}`:                                   "http.request_headers",
		`{"http":{"request_headers":{"set":{"A":"b\r\nC: d"}}}}`:                             "http.request_headers",
		`{"http":{"request_headers":{"set":{"A":"b"},"remove":["a"]}}}`:                      "http.request_headers",
		`{"http":{"response_headers":{"set":{"Content-Length":"1"}}}}`:                       "http.response_headers",
		`{"http":{"response_headers":{"set":{"Tunnox-Error":"x"}}}}`:                         "http.response_headers",
	} {
		err := change(patch)
		refused, ok := err.(*Error)
		if !ok || refused.Code != CodeInvalid || len(refused.Faults) != 1 || refused.Faults[0].Field != field {
			t.Errorf("%s: %+v", patch, err)
		}
	}
	if err := change(`{"http":{"request_headers":{"remove":["X-Forwarded-For"]},"host_header":"[::1]:80"}}`); err != nil {
		t.Error(err)
	}
	for kind, refused := range map[OriginKind]bool{OriginPort: false, OriginAgent: true} {
		var f faults
		Options{Access: &Access{Allow: []string{"192.0.2.1"}}}.check(&f, ProtocolTCP, kind)
		if (len(f.list) > 0) != refused {
			t.Errorf("access of a tcp mapping at %s: %v", kind.where(), f.list)
		}
	}
	var f faults
	(&Access{Basic: []VisitorAccess{{"ann", sealedExample}}}).check(&f, ProtocolTCP, OriginPort)
	if len(f.list) != 1 {
		t.Errorf("passwords of a tcp mapping: %v", f.list)
	}
}

// Passwords are sealed in options and in changes, those that are new and no others.
func TestPasswordsAreSealed(t *testing.T) {
	seal := Seal{Password: func(username, password string) (string, error) { return username + "/" + password, nil }}
	options, err := Options{Access: &Access{Basic: []VisitorAccess{{"ann", "x"}, {"bob", sealedExample}, {"eve", ""}}}}.Sealed(seal)
	if got := options.Access.Basic; err != nil || got[0].Password != "ann/x" || got[1].Password != sealedExample || got[2].Password != "" {
		t.Errorf("sealed: %+v, %v", got, err)
	}
	patch, err := Patch{"Access": json.RawMessage(`{"basic":[{"username":"ann","password":"x"}]}`), "name": json.RawMessage(`"n"`)}.Sealed(seal)
	if text, _ := json.Marshal(patch); err != nil || string(text) != `{"access":{"basic":[{"username":"ann","password":"ann/x"}]},"name":"n"}` {
		t.Errorf("sealed: %s, %v", text, err)
	}
	if _, err := (Options{Access: &Access{Basic: []VisitorAccess{{"ann", "a\nb"}}}}).Sealed(seal); CodeOf(err) != CodeInvalid {
		t.Errorf("a password with a line end: %v", err)
	}
}
