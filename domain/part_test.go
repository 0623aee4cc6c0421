package domain

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// somePart has fields as a part of a mapping may have.
type somePart struct {
	Mode    string   `json:"mode,omitempty" enum:"off,on,auto" unset:"off"`
	Text    string   `json:"text,omitempty" maxLength:"3"`
	Seconds int      `json:"seconds,omitempty" minimum:"1" maximum:"9" unset:"6"`
	Least   int64    `json:"least" minimum:"1"`
	Most    int64    `json:"most,omitempty" maximum:"9"`
	List    []string `json:"list,omitempty"`
	Inner   *struct {
		A, B int
	} `json:"inner,omitempty"`
}

func TestBoundsAreThoseOfTheTags(t *testing.T) {
	for name, tt := range map[string]struct {
		part somePart
		want string
	}{
		"nothing but what must be": {somePart{Least: 1}, ""},
		"all at their bounds":      {somePart{Mode: "auto", Text: "äöü", Seconds: 9, Least: 1, Most: 9}, ""},
		"all outside": {somePart{Mode: "On", Text: "abcd", Seconds: 10, Least: 0, Most: 10}, "mode: must be off, on or auto; " +
			"text: must have up to 3 characters, has 4; seconds: must be 1 to 9, is 10; least: must be 1 or more, is 0; most: must be 9 or less, is 10"},
	} {
		var f faults
		f.bounds(tt.part)
		var got []string
		for _, fault := range f.list {
			got = append(got, fault.Field+": "+fault.Message)
		}
		if strings.Join(got, "; ") != tt.want {
			t.Errorf("%s: %q, want %q", name, strings.Join(got, "; "), tt.want)
		}
	}
	part := somePart{Text: "x"}
	if fillUnset(&part); !reflect.DeepEqual(part, somePart{Mode: "off", Seconds: 6, Text: "x"}) {
		t.Errorf("what was not set means %+v", part)
	}
}

func TestPatchReplacesWhatItNames(t *testing.T) {
	was := somePart{Mode: "on", Text: "a", Least: 3, List: []string{"a", "b"}, Inner: &struct{ A, B int }{1, 2}}
	for patch, want := range map[string]string{
		`{}`:                                 `{"mode":"on","text":"a","least":3,"list":["a","b"],"inner":{"A":1,"B":2}}`,
		`{"mode":null,"list":null}`:          `{"mode":"on","text":"a","least":3,"list":["a","b"],"inner":{"A":1,"B":2}}`,
		`{"Mode":"off","TEXT":"","least":0}`: `{"mode":"off","least":0,"list":["a","b"],"inner":{"A":1,"B":2}}`,
		`{"list":["c"],"inner":{"B":3}}`:     `{"mode":"on","text":"a","least":3,"list":["c"],"inner":{"A":0,"B":3}}`,
		`{"list":[],"inner":{}}`:             `{"mode":"on","text":"a","least":3}`,
		`{"list":[],"seconds":"5"}`:          "seconds: must be a whole number",
	} {
		var p Patch
		if err := json.Unmarshal([]byte(patch), &p); err != nil {
			t.Fatal(err)
		}
		next := was
		var f faults
		f.patch(&next, p)
		got, err := json.Marshal(next)
		if len(f.list) > 0 {
			got = []byte(f.list[0].Field + ": " + f.list[0].Message)
		}
		if string(got) != want || err != nil {
			t.Errorf("%s makes %s, want %s, %v", patch, got, want, err)
		}
	}
	if want := (somePart{Mode: "on", Text: "a", Least: 3, List: []string{"a", "b"}, Inner: &struct{ A, B int }{1, 2}}); !reflect.DeepEqual(was, want) {
		t.Errorf("the old value is %+v now", was)
	}
	other := somePart{Mode: "off", Most: 4}
	var f faults
	for _, whole := range []somePart{was, {Least: 1}, was} {
		if f.patch(&other, PatchOf(whole)); !reflect.DeepEqual(other, whole) || len(f.list) > 0 {
			t.Errorf("the patch of %+v makes %+v, %v", whole, other, f.list)
		}
	}
}

// TestEveryPartIsCarried follows every field of every part through what is made of
// it: a command, its event, the state, a change, a reversal, a share and a use of it.
func TestEveryPartIsCarried(t *testing.T) {
	for _, p := range Protocols() {
		if !slices.Contains(p.row().origins, OriginAgent) {
			continue // TestHTTPMappingIsCarried has it
		}
		t.Run(string(p), func(t *testing.T) { everyPartIsCarried(t, p) })
	}
}

// sealedExample is a password as it may be kept.
const sealedExample = "$argon2id-ed25519$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

// optionsOf are all options that mappings of a protocol and an origin may have, with a
// value each.
func optionsOf(p Protocol, kind OriginKind) Options {
	var options Options // an example of its own: it is changed
	example(reflect.ValueOf(&options).Elem(), Field{})
	v := reflect.ValueOf(&options).Elem()
	for _, field := range Fields(options) {
		if !field.isOf(p) || !field.isAt(kind) {
			v.FieldByIndex(field.index).SetZero()
		}
	}
	options.Targets = nil // the stories of mapping_targets.txt follow them
	if options.Socks != nil {
		options.Socks = &SocksAccess{Username: "ann", Password: hashScheme + "$1$salt$hash"} // which is kept as it is
	}
	if options.Access != nil {
		options.Access = &Access{Allow: []string{"192.0.2.0/24"}, Deny: []string{"192.0.2.1"}, Basic: []VisitorAccess{{"ann", sealedExample}}}
	}
	if options.HTTP != nil {
		changes := &HeaderChanges{Set: map[string]string{"X-A": "b"}, Remove: []string{"X-C"}}
		options.HTTP = &HTTPOptions{HostHeader: "localhost:3000", StripPrefix: "/app", RequestHeaders: changes, ResponseHeaders: changes}
	}
	if options.HealthCheck != nil {
		options.HealthCheck.Path = "/healthz"
	}
	return options
}

func everyPartIsCarried(t *testing.T, p Protocol) {
	allOptions := optionsOf(p, OriginAgent)
	check := func(where string, value any, parts ...any) {
		t.Helper()
		text, err := json.Marshal(value)
		var got map[string]json.RawMessage
		if err == nil {
			err = json.Unmarshal(text, &got)
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range parts {
			v := reflect.ValueOf(part)
			for _, field := range Fields(part) {
				if field.Optional && v.FieldByIndex(field.index).IsZero() {
					continue
				}
				want, err := json.Marshal(v.FieldByIndex(field.index).Interface())
				if err != nil || string(got[field.Name]) != string(want) {
					t.Errorf("%s has %s = %s, want %s, %v", where, field.Name, got[field.Name], want, err)
				}
			}
		}
	}
	origin, service := Origin{LocalHost: "127.0.0.2", LocalPort: 81}, Service{TargetHost: "db", TargetPort: 5432}
	example(reflect.ValueOf(&origin).Elem(), Field{})
	origin.LocalHost = "127.0.0.2"
	origin.PublicPort, origin.PublicHost, origin.PublicPath = PortRange{}, "", "" // it has a source client
	example(reflect.ValueOf(&service).Elem(), Field{})
	service.TargetScheme, service.Target, service.TargetLast = "", "", 0 // TestHTTPMappingIsCarried has one, TestServicesAreCarried the other
	other := Service{TargetHost: "other", TargetPort: 83}
	if p == ProtocolSOCKS5 {
		service, other = Service{}, Service{} // chosen by clients
	}
	parts := Parts{"db", origin, service, allOptions}

	w := newWorld()
	for _, line := range []string{"create_user id=100000001 username=ann email=a@example.org", "create_client id=600000000 user=100000001 name=a key=1"} {
		if err := w.given(line); err != nil {
			t.Fatal(err)
		}
	}
	do := func(c Command) Decision {
		t.Helper()
		d, err := w.run(c)
		if err != nil {
			t.Fatalf("%+v: %v", c, err)
		}
		return d
	}
	d := do(CreateMapping{ID: 1001, UserID: 100000001, SourceClientID: 600000000, TargetClientID: 600000000, Protocol: p, Parts: parts})
	check("the event of a creation", d.Changes[0].Event, origin, service, allOptions)
	check("a mapping", w.state(MappingStream(1001)), parts)

	less := Parts{Name: "less", Origin: Origin{LocalHost: "127.0.0.3", LocalPort: 82}, Service: other}
	was := w.state(MappingStream(1001)).Clone()
	d = do(ChangeMapping{ID: 1001, Patch: PatchOf(less)})
	check("the event of a change", d.Changes[0].Event, less.Origin, less.Service)
	if got := w.state(MappingStream(1001)).(*Mapping).Parts(); !got.equal(less) {
		t.Errorf("changed to %+v, it is %+v", less, got)
	}
	back, err := Compensation(d.Changes[0].Event, was, w.state(MappingStream(1001)), nil)
	if err != nil {
		t.Fatal(err)
	}
	do(back)
	check("a mapping whose change was reverted", w.state(MappingStream(1001)), parts)

	hash := make([]byte, hashLength)
	d = do(CreateShare{ID: 7, UserID: 100000001, TargetClientID: 600000000, Protocol: p, Service: service, Options: allOptions, Hash: hash, MaxUses: 1})
	check("the event of a share", d.Changes[0].Event, service, allOptions)
	check("a share", w.state(ShareStream(7)), service, allOptions)
	used := origin
	used.LocalPort = 99
	do(RedeemShare{ID: 7, Hash: hash, MappingID: 1002, RedeemerID: 100000001, SourceClientID: 600000000, Origin: used})
	check("a mapping made of a share", w.state(MappingStream(1002)), used, service, allOptions)
}

// An option of another protocol is refused, and not shown where it means nothing.
func TestOptionsAreOfAProtocol(t *testing.T) {
	for _, p := range []Protocol{ProtocolTCP, ProtocolUDP} {
		var f faults
		Options{IdleSeconds: 5}.check(&f, p, OriginAgent)
		if refused := len(f.list) > 0; refused != (p == ProtocolTCP) {
			t.Errorf("idle_seconds of a %s mapping: %v", p, f.list)
		}
	}
	if tcp, udp := (Options{}).Shown(ProtocolTCP), (Options{}).Shown(ProtocolUDP); tcp.IdleSeconds != 0 || udp.IdleSeconds != 60 {
		t.Errorf("shown are %+v for tcp and %+v for udp", tcp, udp)
	}
}

// TestHTTPMappingIsCarried is the same for the fields that only http mappings have.
func TestHTTPMappingIsCarried(t *testing.T) {
	w := newWorld()
	for _, line := range []string{"create_user id=100000001 username=ann email=a@example.org", "create_client id=600000000 user=100000001 name=a key=1"} {
		if err := w.given(line); err != nil {
			t.Fatal(err)
		}
	}
	offer := PublicOffer{Known: true, Domains: map[Protocol][]string{ProtocolHTTP: {"t.example.org"}}}
	parts := Parts{"web", Origin{PublicHost: "brave-otter", PublicPath: "/app"}, Service{TargetScheme: "http", Target: "file:/srv/www"}, optionsOf(ProtocolHTTP, OriginHost)}
	d, err := w.run(CreateMapping{ID: 1001, UserID: 100000001, TargetClientID: 600000000, Protocol: ProtocolHTTP, Parts: parts}.Offered(offer))
	if err != nil {
		t.Fatal(err)
	}
	if got := d.Changes[0].Event.(MappingCreated); got.Origin != parts.Origin || got.Service != parts.Service {
		t.Errorf("the event of a creation has %+v and %+v", got.Origin, got.Service)
	}
	was := w.state(MappingStream(1001)).Clone()
	less := Parts{Name: "less", Origin: Origin{PublicHost: "calm-heron", PublicPath: "/"}, Service: Service{TargetHost: "other", TargetPort: 80}}
	if d, err = w.run(ChangeMapping{ID: 1001, Patch: PatchOf(less)}.Offered(offer)); err != nil {
		t.Fatal(err)
	}
	if got := w.state(MappingStream(1001)).(*Mapping).Parts(); !got.equal(less) {
		t.Errorf("changed to %+v, it is %+v", less, got)
	}
	back, err := Compensation(d.Changes[0].Event, was, w.state(MappingStream(1001)), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.run(back.(PublicCommand).Offered(offer)); err != nil {
		t.Fatal(err)
	}
	if got := w.state(MappingStream(1001)).(*Mapping).Parts(); !got.equal(parts) {
		t.Errorf("reverted, it is %+v", got)
	}
}

func TestPathBelow(t *testing.T) {
	for _, c := range []struct {
		path, prefix string
		want         bool
	}{
		{"/", "/", true}, {"/x", "/", true}, {"/app", "/app", true}, {"/app/", "/app", true}, {"/app/x", "/app", true},
		{"/apple", "/app", false}, {"/ap", "/app", false}, {"/App", "/app", false}, {"*", "/", false},
	} {
		if got := PathBelow(c.path, c.prefix); got != c.want {
			t.Errorf("PathBelow(%q, %q) is %v", c.path, c.prefix, got)
		}
	}
}
