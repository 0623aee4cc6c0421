package domain

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestStreamIDs(t *testing.T) {
	for _, id := range []StreamID{UserStream(100000001), ClientStream(1), MappingStream(1001), QuotaStream(9223372036854775807),
		NodeStream(1), NodeStream(1000)} {
		got, err := ParseStreamID(string(id))
		if err != nil || got != id {
			t.Errorf("%s: %q, %v", id, got, err)
		}
		if back := streamID(id.Category(), id.Number()); back != id {
			t.Errorf("%s: parts give %s", id, back)
		}
	}
	for _, s := range []string{"", "user", "user-", "-1", "user-0", "user--1", "user-01", "user-+1", "user-1 ", "User-1", "session-1",
		"user-9223372036854775808", "user-1-2", "user-x", "node-1", "node-0001", "node-000", "node-+01"} {
		if id, err := ParseStreamID(s); err == nil {
			t.Errorf("%q was read as %q", s, id)
		}
	}
	if n := StreamID("user").Number(); n != 0 {
		t.Errorf("number of a stream without one: %d", n)
	}
}

func TestEventIDs(t *testing.T) {
	id := EventID{0: 0x01, 15: 0xff}
	text, err := id.MarshalText()
	if err != nil || string(text) != "01000000-0000-0000-0000-0000000000ff" {
		t.Fatalf("%s, %v", text, err)
	}
	var back EventID
	if err := back.UnmarshalText([]byte(strings.ToUpper(string(text)))); err != nil || back != id {
		t.Errorf("back: %v, %v", back, err)
	}
	if id.IsZero() || !(EventID{}).IsZero() {
		t.Error("IsZero")
	}
	for _, s := range []string{"", "x", "01000000-0000-0000-0000-0000000000f", "010000000000000000000000000000ff",
		"0-1000000-0000-0000-0000-0000000000ff", "01000000-0000-0000-0000-0000000000ff-", "01000000-0000-0000-0000-0000000000fg"} {
		if id, err := ParseEventID(s); err == nil {
			t.Errorf("%q was read as %v", s, id)
		}
	}
}

func TestIDs(t *testing.T) {
	for s, first := range map[Sequence]int64{SequenceUser: 100000001, SequenceClient: 600000000, SequenceMapping: 1001, "x": 0} {
		if s.First() != first {
			t.Errorf("%s begins at %d, want %d", s, s.First(), first)
		}
	}
	for id, anonymous := range map[int64]bool{199999999: false, 200000000: true, 299999999: true, 300000000: false} {
		if IsAnonymous(id) != anonymous {
			t.Errorf("IsAnonymous(%d) = %v", id, !anonymous)
		}
	}
}

func TestErrors(t *testing.T) {
	err := fmt.Errorf("create: %w", &Error{Code: CodeInvalid, Message: "No.", Faults: []Fault{{"a", "is short"}, {"b", "is long"}}})
	if CodeOf(err) != CodeInvalid || err.Error() != "create: No. (a: is short; b: is long)" {
		t.Errorf("%s: %v", CodeOf(err), err)
	}
	if CodeOf(errors.New("x")) != "" || CodeOf(nil) != "" {
		t.Error("a code out of nothing")
	}
	for scope, code := range map[string]Code{ClaimUsername: CodeUsernameTaken, ClaimEmail: CodeEmailTaken, ClaimListener: CodeListenerTaken, ClaimJoinToken: CodeJoinTokenUsed, "x": CodeInvalid} {
		if TakenCode(scope) != code {
			t.Errorf("%s taken is %s", scope, TakenCode(scope))
		}
	}
	need := &NeedStreams{Streams: []StreamID{"user-1", "quota-1"}}
	if need.Error() != "decide needs streams user-1, quota-1" {
		t.Error(need)
	}
}

// FuzzParseStreamID: what is accepted is the one spelling of a stream.
func FuzzParseStreamID(f *testing.F) {
	for _, s := range []string{"user-1", "mapping-1001", "quota-9223372036854775807", "user-01", "client--1", "-", "node-001", "node-1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		id, err := ParseStreamID(s)
		if err != nil {
			return
		}
		if string(id) != s || streamID(id.Category(), id.Number()) != id || id.Number() <= 0 || NewAggregate(id) == nil {
			t.Fatalf("%q was read as %q", s, id)
		}
	})
}

// FuzzParseEventID: what is accepted is the one spelling, but for case.
func FuzzParseEventID(f *testing.F) {
	f.Add("01000000-0000-0000-0000-0000000000ff")
	f.Add("010000000000000000000000000000ff")
	f.Fuzz(func(t *testing.T, s string) {
		if id, err := ParseEventID(s); err == nil && !strings.EqualFold(id.String(), s) {
			t.Fatalf("%q was read as %v", s, id)
		}
	})
}
