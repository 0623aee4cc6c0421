package domain

import (
	"encoding/json"
	"strings"
	"testing"
)

// The password of a socks5 mapping becomes a hash before it is in an event; a change that
// says nothing of it keeps it, and what is shown has none.
func TestSocksPasswordIsHashed(t *testing.T) {
	w := newWorld()
	for _, line := range []string{"create_user id=100000001 username=ann email=a@example.org", "create_client id=600000000 user=100000001 name=a key=1"} {
		if err := w.given(line); err != nil {
			t.Fatal(err)
		}
	}
	d, err := w.run(CreateMapping{ID: 1001, UserID: 100000001, SourceClientID: 600000000, TargetClientID: 600000000, Protocol: ProtocolSOCKS5,
		Parts: Parts{Origin: Origin{LocalPort: 1080}, Options: Options{Socks: &SocksAccess{Username: "ann", Password: "correct horse"}}}})
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(d.Changes[0].Event)
	if err != nil || strings.Contains(string(text), "correct horse") || !strings.Contains(string(text), `"password":"pbkdf2-sha256$10000$mapping-1001$`) {
		t.Errorf("the event is %s, %v", text, err)
	}
	mapping := func() *Mapping { return w.state(MappingStream(1001)).(*Mapping) }
	hash := mapping().Socks.Password
	shown, err := json.Marshal(mapping().Options.Shown(ProtocolSOCKS5))
	if err != nil || string(shown) != `{"socks":{"username":"ann"},"encryption":"transport"}` {
		t.Errorf("shown is %s, %v", shown, err)
	}
	for _, step := range []struct {
		patch, username string
		kept            bool
		refused         bool
	}{
		{`{"socks":{"username":"ann"}}`, "ann", true, false},                              // as it was read
		{`{"socks":{"username":"ann","password":"correct horse"}}`, "ann", true, false},   // the same again
		{`{"socks":{"username":"bob"}}`, "ann", true, true},                               // another, without a password
		{`{"socks":{"username":"bob","password":"staple battery"}}`, "bob", false, false}, // another
		{`{"socks":{}}`, "", false, false},                                                // nobody
	} {
		var p Patch
		if err := json.Unmarshal([]byte(step.patch), &p); err != nil {
			t.Fatal(err)
		}
		_, err := w.run(ChangeMapping{ID: 1001, Patch: p})
		if (err != nil) != step.refused {
			t.Errorf("%s: %v", step.patch, err)
		}
		socks := mapping().Socks
		if step.username == "" {
			if socks != nil {
				t.Errorf("%s leaves %+v", step.patch, socks)
			}
			continue
		}
		if socks == nil || socks.Username != step.username || (socks.Password == hash) != step.kept || !strings.HasPrefix(socks.Password, hashScheme) {
			t.Errorf("%s makes %+v", step.patch, socks)
		}
	}
}

// What identifies a request has no password in it, and is the same for the same request.
func TestSocksPasswordsIdentifyARequest(t *testing.T) {
	options := Options{Socks: &SocksAccess{Username: "ann", Password: "correct horse"}}
	text := func(key string) string {
		o, err := options.Identified(key)
		if err != nil {
			t.Fatal(err)
		}
		p, err := PatchOf(options).Identified(key)
		b, _ := json.Marshal(o.Socks)
		if err != nil || string(p["socks"]) != string(b) {
			t.Errorf("a change is identified by %s, %v, want %s", p["socks"], err, b)
		}
		return string(b)
	}
	if one := text("k"); strings.Contains(one, "correct horse") || one != text("k") || one == text("l") {
		t.Errorf("a request is identified by %s", one)
	}
	if options.Socks.Password != "correct horse" {
		t.Error("the options have changed")
	}
}
