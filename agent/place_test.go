package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A path is allowed by an entry that names it, and by nothing else; a directory also by
// one above it, on the borders of names.
func TestPlacesNeedAnEntryOfTheirOwn(t *testing.T) {
	for _, c := range []struct {
		allow string
		asked string
		top   string // "" = refused
	}{
		{"", "unix:/run/app.sock", ""},
		{"", "file:/srv/www", ""},
		{"*", "unix:/run/app.sock", ""},
		{"*", "file:/srv/www", ""},
		{"unix:/run/app.sock", "unix:/run/app.sock", "/run/app.sock"},
		{"unix:/run/app.sock", "unix:/run/app.sock2", ""},
		{"unix:/run", "unix:/run/app.sock", ""},
		{"unix:/srv/www", "file:/srv/www", ""},
		{"file:/srv/www", "unix:/srv/www/app.sock", ""},
		{"file:/srv/www", "file:/srv/www", "/srv/www"},
		{"file:/srv/www", "file:/srv/www/a/b", "/srv/www"},
		{"file:/srv/www", "file:/srv/wwwx", ""},
		{"file:/srv/www", "file:/srv", ""},
		{"file:/", "file:/etc", "/"},
		{"127.0.0.1:1,file:/srv/www", "file:/srv/www", "/srv/www"},
	} {
		var entries []string
		if c.allow != "" {
			entries = strings.Split(c.allow, ",")
		}
		p, err := ParsePolicy(entries)
		if err != nil {
			t.Fatal(err)
		}
		at, ok := parsePlace(c.asked)
		if !ok || !at.valid() {
			t.Fatalf("%s is no place", c.asked)
		}
		if top, allowed := p.allowsPlace(at); top != c.top || allowed != (c.top != "") {
			t.Errorf("--allow %q: %s is allowed by %q, %v", c.allow, c.asked, top, allowed)
		}
	}
	for _, wrong := range []string{"unix:", "unix:run/app.sock", "file:./www", "file:/srv/../etc", "file:/srv/www/", "unix:/a\x00b"} {
		if at, ok := parsePlace(wrong); ok && at.valid() {
			t.Errorf("%q can be asked for", wrong)
		}
		if _, err := ParsePolicy([]string{wrong}); err == nil || !strings.Contains(err.Error(), "absolute") {
			t.Errorf("--allow %q: %v", wrong, err)
		}
	}
}

// Between what is allowed and what is asked for a link must not lead outside.
func TestALinkBelowWhatIsAllowed(t *testing.T) {
	base := t.TempDir()
	for _, dir := range []string{"www/sub", "other"} {
		if err := os.MkdirAll(filepath.Join(base, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, to := range map[string]string{"www/out": "../other", "www/in": "sub"} {
		if err := os.Symlink(to, filepath.Join(base, name)); err != nil {
			t.Fatal(err)
		}
	}
	top := filepath.Join(base, "www")
	for name, want := range map[string]bool{"": true, "sub": true, "in": true, "out": false, "nothing": false} {
		root, err := openBelow(top, filepath.Join(top, name))
		if (err == nil) != want {
			t.Errorf("%q below what is allowed: %v", name, err)
		}
		if err == nil {
			_ = root.Close()
		}
	}
}
