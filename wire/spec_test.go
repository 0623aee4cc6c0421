package wire

import (
	"os"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The specification is for people without the code, so it has to name what the
// code knows.
func TestSpecNamesEveryCode(t *testing.T) {
	spec, err := os.ReadFile("SPEC.md")
	if err != nil {
		t.Fatal(err)
	}
	for code := range meanings {
		if !strings.Contains(string(spec), "`"+string(code)+"`") {
			t.Errorf("SPEC.md does not name %s", code)
		}
	}
}
