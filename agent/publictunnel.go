package agent

import (
	"encoding/json"

	"github.com/tunnox-net/tunnox/wire/wirepb"
)

// visitorRules are the parts that must not be there when the request has none of them: an
// earlier program's mapping may let in whom this one does not.
var visitorRules = []string{"access", "http"}

// hasVisitorPasswords reports whether visitors must have a password. The server does not
// show those of a mapping, so an equal one may have others.
func (t *tunnel) hasVisitorPasswords() bool {
	access, _ := t.wish.Parts["access"].(map[string]any)
	return access["basic"] != nil
}

// keepAddress has the tunnel ask for the public address of a mapping that it replaces,
// where it asks for none.
func (t *tunnel) keepAddress(left *wirepb.Mapping) {
	had := map[string]any{}
	if json.Unmarshal(left.GetParts(), &had) != nil {
		return // it gets another address
	}
	for _, name := range []string{"public_host", "public_port"} {
		if has := t.wish.Parts[name]; had[name] != nil && (has == nil || has == float64(0)) {
			t.wish.Parts[name] = had[name]
		}
	}
}

// withoutPasswords is a value as the server shows it.
func withoutPasswords(value any) any {
	switch value := value.(type) {
	case map[string]any:
		shown := map[string]any{}
		for name, inner := range value {
			if name != "password" {
				shown[name] = withoutPasswords(inner)
			}
		}
		return shown
	case []any:
		var shown []any
		for _, inner := range value {
			shown = append(shown, withoutPasswords(inner))
		}
		return shown
	}
	return value
}
