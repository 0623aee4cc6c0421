package projections

import (
	"testing"

	"github.com/tunnox-net/tunnox/domain"
)

// TestEveryKindHasARowOrSaysWhyNot: a forgotten kind of aggregate would halt the
// projector at its first record.
func TestEveryKindHasARowOrSaysWhyNot(t *testing.T) {
	known := map[Kind]bool{}
	for _, k := range domain.Kinds() {
		kind := Kind(k.Category)
		known[kind] = true
		switch has := newRows[kind] != nil; {
		case has && k.NoRow != "":
			t.Errorf("%s has a row, and says that it has none: %s", kind, k.NoRow)
		case !has && k.NoRow == "":
			t.Errorf("%s has no row; give it one in newRows, or say in domain/kind.go why it has none", kind)
		}
	}
	for kind, empty := range newRows {
		if !known[kind] {
			t.Errorf("there are rows of %s, which is no kind of the domain", kind)
		}
		if r := empty(); r.live() || r.versions() == nil {
			t.Errorf("an empty row of %s is live, or has no versions", kind)
		}
	}
}
