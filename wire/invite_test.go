package wire

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"
)

func invite() Invite {
	return Invite{ID: 1234567890123, Secret: bytes.Repeat([]byte{7}, InviteSecretSize),
		Servers: []string{"tunnox.example.org:8080", "[2001:db8::1]:8080"}, Pins: [][]byte{bytes.Repeat([]byte{9}, PinSize)}}
}

func TestInvitesAreReadAsTheyWereWritten(t *testing.T) {
	code, err := invite().Code()
	if err != nil {
		t.Fatal(err)
	}
	// Mail programs break lines, and people copy blanks.
	for _, text := range []string{code, " " + code + "\n", code[:40] + "\n  " + code[40:]} {
		if got, err := ParseInvite(text); err != nil || !reflect.DeepEqual(got, invite()) {
			t.Errorf("%q is %+v, %v", text, got, err)
		}
	}
	if id, secret, ok := ParseBearer(invite().Bearer()); !ok || id != invite().ID || !bytes.Equal(secret, invite().Secret) {
		t.Errorf("its bearer is %d, %x, %v", id, secret, ok)
	}
}

// Whoever pastes a part of a code is told so, and not that the invitation is unknown.
func TestDamagedInvitesAreTold(t *testing.T) {
	code, err := invite().Code()
	if err != nil {
		t.Fatal(err)
	}
	for at := len(invitePrefix); at < len(code); at++ {
		if _, err := ParseInvite(code[:at]); !errors.Is(err, ErrDamagedInvite) {
			t.Fatalf("cut at %d: %v", at, err)
		}
		other := byte('A')
		if code[at] == other {
			other = 'B'
		}
		if _, err := ParseInvite(code[:at] + string(other) + code[at+1:]); !errors.Is(err, ErrDamagedInvite) {
			t.Fatalf("changed at %d: %v", at, err)
		}
	}
	for _, text := range []string{"", "tnx_AAAA", "tnc_AAAA", strings.TrimPrefix(code, "tnxj"), "join"} {
		if _, err := ParseInvite(text); !errors.Is(err, ErrNoInvite) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestInvitesThatCannotBe(t *testing.T) {
	for name, change := range map[string]func(*Invite){
		"no id": func(i *Invite) { i.ID = 0 }, "no secret": func(i *Invite) { i.Secret = nil }, "no server": func(i *Invite) { i.Servers = nil },
		"no port": func(i *Invite) { i.Servers = []string{"h"} }, "an escape": func(i *Invite) { i.Servers = []string{"h\x1b[2J:1"} },
		"half a pin": func(i *Invite) { i.Pins = [][]byte{{1}} }, "a long host": func(i *Invite) { i.Servers = []string{strings.Repeat("h", 300) + ":1"} },
	} {
		i := invite()
		change(&i)
		if code, err := i.Code(); err == nil {
			t.Errorf("%s: %s", name, code)
		}
	}
}

func FuzzParseInvite(f *testing.F) {
	code, err := invite().Code()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(code)
	f.Add("tnxj_")
	f.Fuzz(func(t *testing.T, text string) {
		i, err := ParseInvite(text)
		if err != nil {
			return
		}
		again, err := i.Code()
		if err != nil {
			t.Fatalf("%q was read and cannot be written: %v", text, err)
		}
		if back, err := ParseInvite(again); err != nil || !reflect.DeepEqual(back, i) {
			t.Fatalf("%q became %+v, %v", text, back, err)
		}
	})
}
