package httpapi_test

import (
	"strings"
	"testing"

	"github.com/tunnox-net/tunnox/httpapi"
)

// The first 48 bytes of a PEM file are the same in every file: as a secret they
// would be everybody's.
func TestASigningKeyThatWasCutIsRefused(t *testing.T) {
	_, text, err := httpapi.NewSigningKey()
	if err != nil {
		t.Fatal(err)
	}
	for n := range len(text) - 1 { // the last byte is the end of the line
		if _, err := httpapi.ParseSigningKey(text[:n]); err == nil {
			t.Errorf("the first %d of %d bytes are taken for a key", n, len(text))
		} else if n > 60 && strings.Contains(err.Error(), string(text[30:60])) {
			t.Errorf("the error shows the key: %v", err)
		}
	}
	for _, text := range []string{
		"a secret of thirty-two bytes or more, of no kind", "HS256:", "HS256:short", "HS256: " + strings.Repeat(" ", 40), "HS256:" + string(text),
		string(text) + string(text), string(text) + "x",
	} {
		if _, err := httpapi.ParseSigningKey([]byte(text)); err == nil {
			t.Errorf("%.20q is taken for a key", text)
		}
	}
	if _, err := httpapi.ParseSigningKey([]byte("HS256:a secret of thirty-two bytes or more\n")); err != nil {
		t.Error(err)
	}
}
