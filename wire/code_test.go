package wire

import (
	"errors"
	"fmt"
	"regexp"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/wire/wirepb"
)

func TestCodes(t *testing.T) {
	form := regexp.MustCompile(`^[a-z]+(_[a-z]+)*$`)
	for code := range meanings {
		if !form.MatchString(string(code)) || code.Sentence() == "" || !code.Known() {
			t.Errorf("code %q, sentence %q", code, code.Sentence())
		}
		err := fmt.Errorf("open: %w", Refuse(code))
		if !errors.Is(err, code) || CodeOf(err) != code {
			t.Errorf("%v does not carry %s", err, code)
		}
	}
	if CodeOf(nil) != "" || CodeOf(errors.New("x")) != Internal || Code("made_up").Known() {
		t.Error("CodeOf invents codes")
	}
}

func TestRefusedRoundTrip(t *testing.T) {
	for _, r := range []*Refusal{
		Refuse(Superseded),
		{Code: RegistrationLimited, Message: "later", RetryAfter: 90 * time.Second},
		{Code: Claimed, Message: "m", ClientID: 600000000},
		{Code: "from_the_future", Message: "m", Permanent: true},
	} {
		if got := RefusalFrom(RefusedMessage(fmt.Errorf("login: %w", r)).GetRefused()); *got != *r {
			t.Errorf("%+v became %+v", r, got)
		}
	}
	if got := RefusedMessage(&Refusal{Code: TooMany, RetryAfter: time.Millisecond}).GetRefused().RetryAfterSeconds; got != 1 {
		t.Errorf("a millisecond became %d seconds: 0 would say as you like", got)
	}
	if got := RefusedMessage(errors.New("the database's password")).GetRefused(); got.Code != string(Internal) || got.Message != Internal.Sentence() {
		t.Errorf("an internal error's text left the house: %v", got)
	}
}

func TestChooseVersion(t *testing.T) {
	for _, c := range []struct{ min, max, want uint32 }{{1, 1, 1}, {0, 9, 1}, {1, 4294967295, 1}, {2, 3, 0}, {0, 0, 0}, {2, 1, 0}} {
		got, err := ChooseVersion(c.min, c.max)
		if got != c.want || (err == nil) != (c.want != 0) || (err != nil && !errors.Is(err, VersionUnsupported)) {
			t.Errorf("%d to %d: %d, %v", c.min, c.max, got, err)
		}
	}
}

func TestDigest(t *testing.T) {
	a := &wirepb.Listener{MappingId: 1001, Protocol: "tcp", Host: "127.0.0.1", Port: 80, Version: 1, Name: "a"}
	b := &wirepb.Listener{MappingId: 1002, Protocol: "tcp", Host: "127.0.0.1", Port: 81, Version: 1, Name: "b"}
	same := string(Digest([]*wirepb.Listener{a, b}))
	if same != string(Digest([]*wirepb.Listener{b, a})) {
		t.Error("the order changes the digest")
	}
	seen := map[string]bool{same: true, string(Digest(nil)): true, string(Digest([]*wirepb.Listener{a})): true}
	for _, change := range []func(*wirepb.Listener){
		func(l *wirepb.Listener) { l.MappingId = 1003 },
		func(l *wirepb.Listener) { l.Protocol = "udp" },
		func(l *wirepb.Listener) { l.Host = "127.0.0.2" },
		func(l *wirepb.Listener) { l.Port++ },
		func(l *wirepb.Listener) { l.Version++ },
		func(l *wirepb.Listener) { l.Name = "c" },
		func(l *wirepb.Listener) { l.Protocol, l.Host = "tcp1", "27.0.0.1" },
	} {
		other := &wirepb.Listener{MappingId: 1002, Protocol: "tcp", Host: "127.0.0.1", Port: 81, Version: 1, Name: "b"}
		change(other)
		d := string(Digest([]*wirepb.Listener{a, other}))
		if seen[d] {
			t.Errorf("%v has the digest of something else", other)
		}
		seen[d] = true
	}
	if len(seen) != 10 {
		t.Errorf("%d digests", len(seen))
	}
}
