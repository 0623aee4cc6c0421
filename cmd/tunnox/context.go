package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/tunnox-net/tunnox/agent"
	"github.com/tunnox-net/tunnox/wholefile"
)

// A context is what this account of the machine has at one server: identity, address
// and fingerprint of the server, address of its API, login. Each has a directory of its
// own, so that nothing of one can be taken for another's. The first server's is the
// state directory itself, as it was when there was only one; those of others are below
// contexts/ in it. A directory that somebody names with --state is outside of all that.

const (
	contextsDir = "contexts"     // below the state directory
	contextFile = "context.json" // in the directory of a context
	chosenFile  = "chosen"       // in the state directory: the name that tunnox use wrote
)

// contextName is what names of contexts look like: they are names of directories too.
var contextName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)

// place is where a command finds what it needs.
type place struct {
	name string // of the context; "" = a named directory, or nothing is there yet
	dir  string
	// only is set when there is no other context, so that nobody had to choose.
	only bool
}

// contextSettings is what the user said about a context; what the server said is in
// client.json.
type contextSettings struct {
	Name string `json:"name,omitempty"`   // of the first context, whose directory has none
	API  string `json:"api,omitempty"`    // URL of the REST API
	CA   string `json:"api_ca,omitempty"` // certificates in PEM that vouch for it, beside those of the system
}

// known is what the directory of a context has.
type known struct {
	id       agent.Identity
	joined   agent.Joined // zero: no server is known
	settings contextSettings
}

// api is the URL of the REST API, "" when nobody has said it.
func (k known) api() string {
	if k.settings.API != "" {
		return k.settings.API
	}
	return strings.TrimSuffix(k.joined.API, "/")
}

// read reads the directory. There may be nothing in it.
func (p place) read() (known, error) {
	var k known
	kept := &agent.State{File: filepath.Join(p.dir, "client.json")}
	id, err := kept.Load()
	if err != nil {
		return k, err
	}
	k.id = id
	if kept.Joined != nil {
		k.joined = *kept.Joined
	}
	file := filepath.Join(p.dir, contextFile)
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return k, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &k.settings)
	}
	if err != nil {
		return k, fmt.Errorf("read the context in %s: %w; delete the file, and set it again with tunnox use", file, err)
	}
	return k, nil
}

// change changes the settings of the context.
func (p place) change(do func(*contextSettings)) error {
	k, err := p.read()
	if err != nil {
		return err
	}
	do(&k.settings)
	b, err := json.MarshalIndent(k.settings, "", "  ")
	if err != nil {
		return err
	}
	return keepFile(filepath.Join(p.dir, contextFile), append(b, '\n'))
}

// keepFile writes a file that only its owner can read. After a crash at any moment it
// has the old content or the new one.
func keepFile(file string, b []byte) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	return wholefile.Write(file, b, 0o600)
}

// contexts lists the contexts, the first server's first.
func (s surroundings) contexts() ([]place, error) {
	base := defaultStateDir(s)
	var all []place
	first := place{dir: base}
	if k, err := first.read(); err != nil || !k.empty() {
		first.name = firstName(k) // what is wrong with it is told when it is used
		all = append(all, first)
	}
	entries, err := os.ReadDir(filepath.Join(base, contextsDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read the contexts: %w", err)
	}
	for _, e := range entries {
		if dir := filepath.Join(base, contextsDir, e.Name()); e.IsDir() && contextName.MatchString(e.Name()) {
			p := place{name: e.Name(), dir: dir}
			if k, err := p.read(); err != nil || !k.empty() {
				all = append(all, p)
			}
		}
	}
	all = append(all, s.contextsOfServices(all)...)
	for i := range all {
		all[i].only = len(all) == 1
	}
	return all, nil
}

// contextsOfServices are those whose state went to a service with an account of its own.
func (s surroundings) contextsOfServices(others []place) (all []place) {
	if s.services == "" {
		return nil
	}
	dirs, err := filepath.Glob(filepath.Join(s.services, serviceName+"*"))
	if err != nil {
		return nil
	}
	for _, dir := range dirs {
		p := place{dir: dir}
		k, err := p.read()
		if err != nil || k.empty() {
			continue
		}
		if p.name = strings.TrimPrefix(filepath.Base(dir), serviceName+"-"); p.name == serviceName {
			p.name = firstName(k)
		}
		if !slices.ContainsFunc(others, func(other place) bool { return other.name == p.name }) {
			all = append(all, p)
		}
	}
	return all
}

// empty tells that there is nothing of a context. The key of an identity that no server
// has registered is nothing: the answer to a join may have been lost.
func (k known) empty() bool { return k.id.ClientID == 0 && k.api() == "" && len(k.joined.Servers) == 0 }

// firstName is the name of the context whose directory has none.
func firstName(k known) string {
	switch {
	case k.settings.Name != "":
		return k.settings.Name
	case len(k.joined.Servers) > 0:
		return nameOfServer(k.joined.Servers[0])
	}
	if u, err := url.Parse(k.api()); err == nil && u.Host != "" {
		return nameOfServer(u.Host)
	}
	return "default"
}

// nameOfServer makes a context's name of host:port, host or URL.
func nameOfServer(server string) string {
	if _, after, ok := strings.Cut(server, "://"); ok {
		server = after
	}
	host, _, err := net.SplitHostPort(server)
	if err != nil {
		host = server
	}
	name := strings.Map(func(r rune) rune {
		if 'a' <= r && r <= 'z' || '0' <= r && r <= '9' || r == '.' || r == '-' || r == '_' {
			return r
		}
		return '-' // an address of IPv6 has colons
	}, strings.ToLower(host))
	name = strings.TrimLeft(name[:min(len(name), 63)], "-._")
	if name == "" {
		return "default"
	}
	return name
}

// place gives the one that a command is for. named is its --state, "" without one.
func (s surroundings) place(named string) (place, error) {
	switch context := s.contextFlag(); {
	case named != "":
		return place{dir: named}, nil
	case context != "":
		return s.contextNamed(context, "--context")
	}
	named, context := s.variable("TUNNOX_STATE"), s.variable("TUNNOX_CONTEXT")
	switch {
	case named != "" && context != "":
		return place{}, usageError("TUNNOX_STATE and TUNNOX_CONTEXT exclude each other: each says where the identity is")
	case named != "":
		return place{dir: named}, nil
	case context != "":
		return s.contextNamed(context, "TUNNOX_CONTEXT")
	}
	return s.chosenPlace()
}

// contextFlag is the value of --context.
func (s surroundings) contextFlag() string {
	if s.context == nil {
		return ""
	}
	return *s.context
}

// chosenPlace is the one of tunnox use, or of the first server.
func (s surroundings) chosenPlace() (place, error) {
	base := defaultStateDir(s)
	b, err := os.ReadFile(filepath.Join(base, chosenFile))
	switch {
	case err == nil:
		return s.contextNamed(strings.TrimSpace(string(b)), "tunnox use")
	case !errors.Is(err, fs.ErrNotExist):
		return place{}, fmt.Errorf("read which context was chosen: %w", err)
	}
	all, err := s.contexts()
	if err != nil || len(all) == 0 {
		return place{dir: base, only: true}, err
	}
	return all[0], nil
}

// contextNamed finds a context. from says who named it.
func (s surroundings) contextNamed(name, from string) (place, error) {
	all, err := s.contexts()
	if err != nil {
		return place{}, err
	}
	names := make([]string, len(all))
	for i, p := range all {
		if names[i] = p.name; p.name == name {
			return p, nil
		}
	}
	there := "there is none yet: tunnox join CODE makes one"
	if len(names) > 0 {
		there = "there are " + strings.Join(names, ", ")
	}
	return place{}, usageError("%s names the context %q, which does not exist; %s", from, name, there)
}

// newContext gives the place of a context that does not exist yet.
func (s surroundings) newContext(name string) (place, error) {
	if !contextName.MatchString(name) {
		return place{}, usageError("the name of a context %q must have 1 to 63 of a-z, 0-9, - . and _, and begin with a letter or a digit", name)
	}
	base := defaultStateDir(s)
	if k, err := (place{dir: base}).read(); err == nil && k.empty() {
		return place{name: name, dir: base}, nil // the first
	}
	return place{name: name, dir: filepath.Join(base, contextsDir, name)}, nil
}

// choose makes a context the one of the commands that follow.
func (s surroundings) choose(p place) error {
	if err := keepFile(filepath.Join(defaultStateDir(s), chosenFile), []byte(p.name+"\n")); err != nil {
		return fmt.Errorf("keep which context was chosen: %w", err)
	}
	return nil
}

// loginsAt is where the logins of a place are kept: a context has its own.
func (s surroundings) loginsAt(p place) logins {
	dir := defaultStateDir(s)
	if p.name != "" {
		dir = p.dir
	}
	return logins{filepath.Join(dir, "logins.json")}
}

// sameServer finds the context of a server that has one of the pins or, without pins,
// one of the addresses.
func (s surroundings) sameServer(servers, pins []string) (place, bool, error) {
	all, err := s.contexts()
	if err != nil {
		return place{}, false, err
	}
	for _, p := range all {
		k, err := p.read()
		if err != nil {
			continue // of which server it is cannot be known
		}
		ours, theirs := k.joined.Pins, pins
		if len(ours) == 0 || len(theirs) == 0 {
			ours, theirs = k.joined.Servers, servers
		}
		if slices.ContainsFunc(theirs, func(one string) bool { return slices.Contains(ours, one) }) {
			return p, true, nil
		}
	}
	return place{}, false, nil
}
