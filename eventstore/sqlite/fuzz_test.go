package sqlite_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/eventstore"
	"github.com/tunnox-net/tunnox/eventstore/sqlite"
)

// FuzzAppend: every append is refused as malformed or comes back byte for byte, with a
// leaf that matches.
func FuzzAppend(f *testing.F) {
	f.Add("user-1", "happened", 1, []byte(`{"b":1, "a":[null,"\u0000\ud800"]}`), "key", "actor")
	f.Add("user-\x00", "", 0, []byte(`{`), "", "")
	f.Add("\xff", "a\nb", 40000, []byte("\"\xff\""), "k\n", "\xff\u2028")
	s := open(f).(*sqlite.Store)
	var key int
	f.Fuzz(func(t *testing.T, stream, name string, schema int, data []byte, k, actor string) {
		key++
		a := eventstore.Append{Meta: domain.Metadata{Actor: actor}, Streams: []eventstore.StreamAppend{{Stream: domain.StreamID(stream), Expected: eventstore.Any}},
			Events: []eventstore.NewEvent{{Name: name, Schema: schema, Data: data}}, Key: k, KeyScope: "fuzz", Subject: "user-1"}
		a.Hash[0], a.Hash[1], a.Hash[2] = byte(key), byte(key>>8), byte(key>>16)
		results, err := s.AppendBatch(t.Context(), []eventstore.Append{a})
		if err != nil {
			t.Fatal(err)
		}
		r := results[0]
		if errors.Is(r.Err, eventstore.ErrMalformed) || errors.Is(r.Err, eventstore.ErrKeyReused) {
			return
		}
		if r.Err != nil {
			t.Fatal(r.Err)
		}
		got, err := s.ReadAll(t.Context(), r.Last-1, 1)
		if err != nil || len(got) != 1 || !bytes.Equal(got[0].Data, data) || got[0].Name != name || string(got[0].Stream) != stream || got[0].Schema != schema {
			t.Fatalf("came back as %+v, %v", got, err)
		}
		leaves, err := s.Leaves(t.Context(), r.Last-1, 1)
		if err != nil || len(leaves) != 1 || !leaves[0].Matches() {
			t.Fatalf("leaf: %+v, %v", leaves, err)
		}
	})
}
