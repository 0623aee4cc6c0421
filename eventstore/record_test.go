package eventstore_test

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/eventstore"
)

// FuzzDecodeMeta compares the fast reading of metadata with encoding/json.
func FuzzDecodeMeta(f *testing.F) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.UTC)
	for _, m := range []domain.Metadata{
		{},
		{At: at},
		{At: at, Actor: "key:api", Command: "create_user", Source: "127.0.0.1:1", Request: "r", Cause: "c", Allowed: "role:admin"},
		{At: at, Actor: "Zoë \"<&>\"\n\u2028", Command: "\x00\x7f"},
	} {
		b, err := json.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(b))
	}
	for _, s := range []string{"", "{", "{}", "null", "[]", `{"at":"2026-03-01"}`, `{"at":"2026-03-01T12:00:00Z","at":"2026-03-01T12:00:01Z"}`,
		`{"actor":"a","actor":"b"}`, `{"actor":"a","actor":""}`, `{"actor":"","actor":"b"}`, `{"ACTOR":"a"}`, `{"actor":null}`, `{"actor":"a",}`, `{"actor":"a"}}`, `{"actor":"a"`,
		` {"actor" : "a"} `, `{"other":"a"}`, `{"at":""}`, `{"actor":1}`, `{"at":"2026-03-01T12:00:00,5Z"}`, `{"at":"2026-03-01T12:00:00+24:00"}`,
		`{"at":"0001-01-01T00:00:00Z","at":"2026-03-01T12:00:00+02:00"}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var want domain.Metadata
		wantErr := json.Unmarshal([]byte(s), &want)
		got, err := eventstore.DecodeMeta(7, s)
		if (err == nil) != (wantErr == nil) || err == nil && !reflect.DeepEqual(got, want) {
			t.Fatalf("%q: got %+v, %v\nwant %+v, %v", s, got, err, want, wantErr)
		}
	})
}
