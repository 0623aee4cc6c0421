package eventstore_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/eventstore"
)

// TestPreviewIsWhatSubmitDoes previews many random commands and then submits each: the
// records, or the refusal, must be the same.
func TestPreviewIsWhatSubmitDoes(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s eventstore.Store) {
		e := start(t, s, eventstore.ExecutorOptions{})
		draw := rand.New(rand.NewPCG(11, 11))
		user := newUser(t, e, "ann", domain.Limits{MaxMappings: limit(6)})
		client := newClient(t, e, user)
		mappings, accepted, refused := []int64{}, 0, map[domain.Code]int{}
		for i := range 150 {
			some := int64(1)
			if len(mappings) > 0 {
				some = mappings[draw.IntN(len(mappings))]
			}
			name := []string{"ann", "bob", "eve"}[draw.IntN(3)]
			var c domain.Command
			switch draw.IntN(7) {
			case 0, 1:
				c = mapping(id(t, e, domain.SequenceMapping), user, client, 80+draw.IntN(8))
			case 2:
				c = domain.SetMappingEnabled{ID: some, Enabled: draw.IntN(2) == 0}
			case 3:
				c = domain.DeleteMapping{ID: some}
			case 4:
				c = domain.ChangeUser{ID: user, Username: &name}
			case 5:
				c = domain.CreateUser{ID: id(t, e, domain.SequenceUser), Username: name, Email: name + "@example.org"}
			case 6:
				c = domain.ChangeMapping{ID: some, Patch: domain.Patch{"local_port": fmt.Append(nil, 80+draw.IntN(8))}}
			}
			sub := submission(c)
			if draw.IntN(10) == 0 {
				v := domain.Version(draw.IntN(4))
				sub.Expect = &v
			}
			if i%20 == 0 {
				sub.Key, sub.KeyScope = "the same", "test"
				sub.Hash[0] = byte(i)
			}
			head, err := s.Head(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			want, previewErr := e.Preview(t.Context(), sub)
			if now, err := s.Head(t.Context()); err != nil || now != head {
				t.Fatalf("a preview wrote: %v, was %v (%v)", now, head, err)
			}
			got, err := e.Submit(t.Context(), sub)
			if domain.CodeOf(err) != domain.CodeOf(previewErr) || (err == nil) != (previewErr == nil) {
				t.Fatalf("%#v: preview says %v, submit %v", c, previewErr, err)
			}
			if err != nil {
				refused[domain.CodeOf(err)]++
				continue
			}
			accepted++
			if created, ok := c.(domain.CreateMapping); ok && !got.Duplicate {
				mappings = append(mappings, created.ID)
			}
			if got.Version != want.Version || got.Subject != want.Subject || len(got.Records) != len(want.Records) {
				t.Fatalf("%#v: preview says version %d and %d records, submit %d and %d", c, want.Version, len(want.Records), got.Version, len(got.Records))
			}
			for i, r := range got.Records {
				p := want.Records[i]
				if p.Stream != r.Stream || p.Version != r.Version || p.Owner != r.Owner || p.Name != r.Name || string(p.Data) != string(r.Data) || p.Meta != r.Meta {
					t.Fatalf("record %d is %+v, the preview said %+v", i, r, p)
				}
			}
		}
		t.Logf("%d accepted, refused %v", accepted, refused)
	})
}
