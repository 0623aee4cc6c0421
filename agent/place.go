package agent

import (
	"errors"
	"path/filepath"
	"strings"
)

// place is a service that is a path of this machine: a unix socket or a directory.
type place struct{ kind, path string }

// The kinds of places, as policies and mappings name them.
const (
	unixPlace = "unix"
	filePlace = "file"
)

// parsePlace reads unix:PATH or file:PATH; ok is false for a service that is no place.
func parsePlace(text string) (at place, ok bool) {
	kind, path, found := strings.Cut(text, ":")
	if !found || kind != unixPlace && kind != filePlace {
		return place{}, false
	}
	return place{kind, path}, true
}

// String is how policies and mappings name it.
func (p place) String() string { return p.kind + ":" + p.path }

// valid tells whether the path is an absolute one in its one form, so that comparing it
// with what the policy names is enough.
func (p place) valid() bool {
	return filepath.IsAbs(p.path) && filepath.Clean(p.path) == p.path && !strings.ContainsRune(p.path, 0)
}

// within tells whether the place is the other one, or a directory below it.
func (p place) within(other place) bool {
	if p.kind != other.kind {
		return false
	}
	return p.path == other.path || p.kind == filePlace && strings.HasPrefix(p.path, strings.TrimSuffix(other.path, string(filepath.Separator))+string(filepath.Separator))
}

// parseAllowedPlace reads an entry of --allow that is a place; ok as with parsePlace.
func parseAllowedPlace(entry string) (at place, ok bool, err error) {
	if at, ok = parsePlace(entry); ok && !at.valid() {
		return at, ok, errors.New("the path must be absolute, without . and .. and without a slash at its end")
	}
	return at, ok, nil
}

// allowsPlace tells whether a unix socket, unix:PATH, or a directory, file:PATH, may be
// reached. Both are refused unless an entry names them; a directory also by an entry for
// one above it. top is the path that the entry names.
func (p Policy) allowsPlace(at place) (top string, ok bool) {
	for _, allowed := range p.places {
		if at.within(allowed) {
			return allowed.path, true
		}
	}
	return "", false
}
