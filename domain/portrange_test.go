package domain

import (
	"encoding/json"
	"testing"
)

// A port is a number in JSON, several are a text, and what is neither is refused.
func TestPortRangeInJSON(t *testing.T) {
	for text, want := range map[string]PortRange{
		`0`: {}, `20000`: {20000, 20000}, `"20000"`: {20000, 20000}, `"20000-20009"`: {20000, 20009}, `"9-3"`: {9, 3},
	} {
		var got PortRange
		if err := json.Unmarshal([]byte(text), &got); err != nil || got != want {
			t.Errorf("%s reads as %v, %v, want %v", text, got, err, want)
		}
		again, err := json.Marshal(got)
		if err != nil {
			t.Fatal(err)
		}
		var back PortRange
		if err := json.Unmarshal(again, &back); err != nil || back != want || (want.First == want.Last) == (again[0] == '"') {
			t.Errorf("%v is written as %s and reads as %v, %v", want, again, back, err)
		}
	}
	for _, text := range []string{`""`, `"-"`, `"1-"`, `"a-b"`, `"1-2-3"`, `"-1"`, `"1 - 2"`, `"99999999999999"`, `1.5`, `{}`, `[1]`, `true`} {
		if err := json.Unmarshal([]byte(text), new(PortRange)); err == nil {
			t.Errorf("%s is read", text)
		}
	}
}
