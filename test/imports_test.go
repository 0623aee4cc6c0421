// Package test has the tests that need more than one package: the rules between
// packages, and properties of the whole.
package test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/tunnox-net/tunnox/"

// importRule says what the packages a pattern names may import of ours. In from,
// "*" stands for one path element, "**" for any number. In to, ".." is the folder
// above the importing package, which holds its contract, and "./*" are the
// packages below it.
type importRule struct {
	from   string
	to     []string
	reason string
}

// importRules is the table of docs/architecture.md. The first rule whose from
// matches is the one that holds.
var importRules = []importRule{
	{"domain", nil,
		"what can happen is decided without a clock, a socket or a database"},
	{"wire/wirepb", nil,
		"generated from wire.proto"},
	{"wire", []string{"wire/wirepb"},
		"an agent in another language implements wire and nothing else; wirepb is its generated half"},
	{"transport", []string{"netaddr", "wait", "wholefile"},
		"a carrier does not know who the peer is or what the bytes mean"},
	{"transport/quic", []string{"..", "netaddr"},
		"a carrier knows the contract of sessions"},
	{"certs", []string{"wait"},
		"certificates come from files, or from who keeps them; who listens with them is the programs' choice"},
	{"certs/acme", []string{"wait"},
		"it orders and keeps certificates; which hosts are wanted and where it stores them is handed to it"},
	{"basicauth", nil,
		"what a password becomes and what a cookie says is the same for who seals and who verifies"},
	{"oidcauth", []string{"basicauth"},
		"who may come in at a host is decided from what a provider says; mappings, HTTP of visitors and networks are its callers' business"},
	{"ingress", []string{"basicauth", "netaddr"},
		"HTTP between a visitor and a service; what a host leads to is handed to it"},
	{"directory", nil,
		"the contract of presence holds types only; presence is not history, so it knows no domain"},
	{"migrations", nil,
		"schemas are files"},
	{"primary", nil,
		"which server takes writes is the same for everybody who writes"},
	{"daemon", []string{"wholefile"},
		"a service is a program with arguments; which one is the programs' business"},
	{"checkup", nil,
		"a report is lines; what is checked is the programs' business"},
	{"attest", nil,
		"it proves bytes, whatever they mean"},
	{"gather", nil,
		"what is asked, and of whom, is its callers' business"},
	{"wholefile", nil,
		"a file is a path and bytes, whatever they mean"},
	{"netaddr", nil,
		"what counts as one address is decided from the address alone"},
	{"wait", nil,
		"how long to pause, and for what, is the caller's business"},
	{"eventstore", []string{"domain", "wait"},
		"the log keeps records; what follows it declares its own interfaces"},
	{"logproof", []string{"wholefile"},
		"who does not trust a log verifies its proofs with nothing of the server's"},
	{"audit", []string{"domain", "eventstore", "logproof"},
		"it proves what a log holds, whichever store the log is in"},
	{"broker", []string{"domain"},
		"the feed carries records and does not know who reads them"},
	{"projections", []string{"domain", "wait"},
		"read models fold records with the domain's own Apply, whatever store they come from"},
	{"httpapi", []string{"basicauth", "netaddr", "domain", "projections", "usage", "webhook"},
		"REST speaks commands, rows and counts; what draws an auth code is handed to it"},
	{"webhook", []string{"domain", "wait"},
		"it delivers records, whatever store the log and the deliveries are in; how a record is shown is handed to it"},
	{"usage", nil,
		"the contract of counting holds types only; what is counted is numbers and ids"},
	{"bridge/bridgepb", nil,
		"generated from bridge.proto"},
	{"bridge", []string{"./bridgepb", "wire", "transport", "wait"},
		"it carries streams between forwarders and does not know what is in them"},
	{"control/controlpb", nil,
		"generated from control.proto"},
	{"control/postgres/internal/queries", nil,
		"generated from queries.sql, private to the package above it"},
	{"control/postgres", []string{"..", "./internal/queries", "primary", "wait"},
		"where control planes keep what they share; it knows the seam for secrets"},
	{"control", []string{"./controlpb", "basicauth", "domain", "gather", "usage", "wait", "wholefile"},
		"what a forwarder may ask of the control plane; log, read models and secrets are behind seams"},
	{"datagram", nil,
		"datagrams in a stream are bytes; what a flow leads to is handed to it"},
	{"socks", nil,
		"SOCKS is read and answered; what is opened for it is its caller's business"},
	{"seal", []string{"transport", "wholefile"},
		"it seals the bytes of any stream; whose a key is and what is carried is its callers' business"},
	{"inspector", []string{"transport"}, "it reads what passes; which connections those are is the agent's business"},
	{"webroot", nil, "a directory is served to whoever asks; who may ask is its caller's business"},
	{"agent", []string{"wire", "wire/wirepb", "transport", "datagram", "logproof", "proxyheader", "seal", "socks", "webroot", "wait", "wholefile"},
		"the agent runs at the customer: it knows the protocol and nothing of the server"},
	{"reach", []string{"transport"},
		"how a server is reached, and nothing of what is said to it"},
	{"proxyheader", nil, "a header is read and written; whose it is believed to be is its caller's business"},
	{"forwarder", []string{"domain", "wire", "wire/wirepb", "transport", "broker", "directory", "usage", "netaddr", "datagram", "proxyheader", "wait"},
		"records and bytes meet here; broker, directory and usage are the contracts, which hold only types"},
	{"*/*test", []string{"**"},
		"a suite is imported by tests only, which the test below holds"},
	{"examples/*", []string{"agent", "transport"},
		"what others may build on: the agent and how it reaches a server"},
	{"test/**", []string{"**"},
		"tests of the whole need the whole"},
	{"broker/*", []string{"..", "attest", "domain", "wait"},
		"a backend knows its contract and the vocabulary, never another backend"},
	{"projections/*", []string{"..", "attest", "domain", "gather"},
		"a backend knows its contract and the vocabulary, never another backend"},
	{"directory/*", []string{".."},
		"a backend knows its contract"},
	{"webhook/*/internal/queries", nil,
		"generated from queries.sql, private to the store above it"},
	{"webhook/*", []string{"..", "./internal/queries", "domain", "primary"},
		"a store knows its contract and its own queries, never another store"},
	{"usage/*/internal/queries", nil,
		"generated from queries.sql, private to the store above it"},
	{"usage/*", []string{"..", "./internal/queries", "primary"},
		"a store knows its contract and its own queries, never another store"},
	{"eventstore/*/internal/queries", nil,
		"generated from queries.sql, private to the store above it"},
	{"eventstore/*", []string{"..", "./internal/queries", "domain", "migrations", "primary"},
		"a store knows its contract, its own queries and the schema it checks, never another store"},
	{"cmd/*", []string{"attest", "checkup", "domain", "eventstore/**", "audit", "broker/**", "projections/**", "directory/**", "usage/**", "webhook/**", "gather", "httpapi", "wire", "transport/**", "ingress", "basicauth", "oidcauth", "certs/**", "datagram", "forwarder", "bridge", "control", "control/postgres", "daemon", "agent", "inspector", "reach", "migrations", "primary", "proxyheader", "seal", "wait", "wholefile"},
		"only programs know everybody, and not each other"},
}

// linkRule says what a binary or package must not contain, by import path.
type linkRule struct {
	pkg       string
	forbidden []string
	reason    string
}

var linkRules = []linkRule{
	{"cmd/tunnox", []string{
		"github.com/jackc/pgx", "modernc.org/sqlite", "database/sql", "github.com/pressly/goose",
		"github.com/redis/", "github.com/ThreeDotsLabs/", "google.golang.org/grpc", "github.com/danielgtaylor/huma",
		module + "eventstore", module + "audit", module + "broker", module + "projections", module + "directory", module + "httpapi", module + "forwarder", module + "migrations",
	}, "the agent runs on customers' machines: small, and nothing in it that can be attacked for the server's sake"},
	{"agent", []string{module + "domain", "database/sql", "github.com/redis/", "google.golang.org/grpc"},
		"the same, for whoever embeds the agent"},
	{"forwarder", []string{
		"github.com/jackc/pgx", "modernc.org/sqlite", "database/sql", module + "eventstore", module + "migrations",
		"github.com/redis/", "github.com/ThreeDotsLabs/", module + "certs",
	}, "a forwarder has no database credentials and nothing to use them with; the feed's backend is chosen by cmd"},
}

// row is the rule as docs/architecture.md shows it.
func (r importRule) row() string {
	return fmt.Sprintf("| `%s` | %s | %s |", r.from, codeList(r.to), r.reason)
}

func (r linkRule) row() string {
	names := make([]string, len(r.forbidden))
	for i, f := range r.forbidden {
		names[i] = strings.TrimSuffix(strings.TrimPrefix(f, module), "/")
	}
	return fmt.Sprintf("| `%s` | %s | %s |", r.pkg, codeList(names), r.reason)
}

func codeList(names []string) string {
	if len(names) == 0 {
		return "nothing"
	}
	return "`" + strings.Join(names, "` `") + "`"
}

func TestTheArchitectureShowsTheTable(t *testing.T) {
	b, err := os.ReadFile("../docs/architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, r := range importRules {
		want = append(want, r.row())
	}
	for _, r := range linkRules {
		want = append(want, r.row())
	}
	for _, row := range want {
		if !strings.Contains(string(b), row+"\n") {
			t.Errorf("docs/architecture.md lacks the line\n%s", row)
		}
	}
}

// forbiddenNames are names that say nothing about the purpose of a package.
var forbiddenNames = []string{"util", "utils", "common", "helper", "helpers", "base", "types", "models", "manager", "core", "misc", "shared"}

// goPackage is the part of `go list -json` that this test reads.
type goPackage struct {
	ImportPath   string
	Name         string
	Doc          string
	Imports      []string
	TestImports  []string
	XTestImports []string
	Deps         []string
	GoFiles      []string
	TestGoFiles  []string
	XTestGoFiles []string
}

func listPackages(t *testing.T, args ...string) []goPackage {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"list", "-json=ImportPath,Name,Doc,Imports,TestImports,XTestImports,Deps,GoFiles,TestGoFiles,XTestGoFiles"}, args...)...)
	cmd.Dir = ".."
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var pkgs []goPackage
	for dec := json.NewDecoder(out); ; {
		var p goPackage
		err := dec.Decode(&p)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("read go list: %v", err)
		}
		pkgs = append(pkgs, p)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("go list %v: %v\n%s", args, err, stderr.String())
	}
	return pkgs
}

// ours gives the path inside the module; ok is false for a package of others.
func ours(importPath string) (rel string, ok bool) { return strings.CutPrefix(importPath, module) }

// matches compares a path to a pattern of importRule, element by element.
func matches(pattern, rel string) bool {
	if prefix, ok := strings.CutSuffix(pattern, "**"); ok {
		prefix = strings.TrimSuffix(prefix, "/")
		return prefix == "" || rel == prefix || strings.HasPrefix(rel, prefix+"/")
	}
	ok, err := path.Match(pattern, rel)
	return err == nil && ok
}

func ruleFor(rel string) (importRule, bool) {
	i := slices.IndexFunc(importRules, func(r importRule) bool { return matches(r.from, rel) })
	if i < 0 {
		return importRule{}, false
	}
	return importRules[i], true
}

func (r importRule) allows(from, to string) bool {
	return slices.ContainsFunc(r.to, func(pattern string) bool {
		if strings.HasPrefix(pattern, ".") {
			pattern = path.Join(from, pattern)
		}
		return matches(pattern, to)
	})
}

func TestImportsFollowTheTable(t *testing.T) {
	for _, p := range listPackages(t, "./...") {
		from, ok := ours(p.ImportPath)
		if !ok {
			continue
		}
		rule, ok := ruleFor(from)
		if !ok {
			t.Errorf("%s has no line in importRules; add one with its reason", from)
			continue
		}
		for _, imp := range p.Imports {
			if to, ok := ours(imp); ok && !rule.allows(from, to) {
				t.Errorf("%s imports %s; its rule allows %v because %s", from, to, rule.to, rule.reason)
			}
		}
	}
}

func TestSuitesAndHarnessesAreImportedByTestsOnly(t *testing.T) {
	for _, p := range listPackages(t, "./...") {
		from, _ := ours(p.ImportPath)
		if forTests(from) {
			continue
		}
		for _, imp := range p.Imports {
			if to, ok := ours(imp); ok && forTests(to) {
				t.Errorf("%s imports %s outside of its tests", from, to)
			}
		}
	}
}

// forTests reports whether a package is a suite or a harness, which are in no program.
func forTests(rel string) bool {
	return matches("*/*test", rel) || matches("test/**", rel)
}

func TestNoCycleBetweenTopLevelFolders(t *testing.T) {
	edges := map[string]map[string]bool{}
	for _, p := range listPackages(t, "./...") {
		from, ok := ours(p.ImportPath)
		if !ok || forTests(from) {
			continue
		}
		for _, imp := range p.Imports {
			a, b := top(from), ""
			if to, ok := ours(imp); ok {
				b = top(to)
			}
			if b == "" || a == b {
				continue
			}
			if edges[a] == nil {
				edges[a] = map[string]bool{}
			}
			edges[a][b] = true
		}
	}
	done := map[string]bool{}
	var visit func(folder string, way []string)
	visit = func(folder string, way []string) {
		if i := slices.Index(way, folder); i >= 0 {
			t.Errorf("folders import each other in a circle: %s", strings.Join(append(way[i:], folder), " -> "))
			return
		}
		if done[folder] {
			return
		}
		way = append(way, folder)
		for next := range edges[folder] {
			visit(next, way)
		}
		done[folder] = true
	}
	for folder := range edges {
		visit(folder, nil)
	}
}

func top(rel string) string {
	folder, _, _ := strings.Cut(rel, "/")
	return folder
}

func TestEveryPackageSaysItsDuty(t *testing.T) {
	for _, p := range listPackages(t, "./...") {
		rel, ok := ours(p.ImportPath)
		if !ok || len(p.GoFiles) == 0 {
			continue
		}
		if p.Doc == "" {
			t.Errorf("%s has no package comment", rel)
		}
		if slices.Contains(forbiddenNames, p.Name) || slices.Contains(forbiddenNames, path.Base(rel)) {
			t.Errorf("%s: the name says nothing about what the package gives", rel)
		}
	}
}

func TestBinariesLinkOnlyWhatTheyNeed(t *testing.T) {
	for _, rule := range linkRules {
		t.Run(rule.pkg, func(t *testing.T) {
			pkgs := listPackages(t, "./"+rule.pkg)
			if len(pkgs) != 1 {
				t.Fatalf("go list found %d packages", len(pkgs))
			}
			for _, bad := range rule.forbidden {
				for _, dep := range pkgs[0].Deps {
					if dep == bad || strings.HasPrefix(dep, strings.TrimSuffix(bad, "/")+"/") {
						t.Errorf("links %s; not allowed because %s", dep, rule.reason)
					}
				}
			}
		})
	}
}

// The domain gets time, ids and randomness with the command, so that a replay gives the
// same decisions and states as the original. Package sync is allowed: a pool of
// decoders changes no decision.
func TestDomainIsPure(t *testing.T) {
	// Names are checked by the tables of Unicode; they change what is decided, never what is replayed.
	pure := []string{"golang.org/x/text/secure/precis"}
	impure := []string{"os", "net/http", "database/sql", "math/rand", "math/rand/v2", "crypto/rand", "log/slog", "log", "context", "io"}
	for _, imp := range listPackages(t, "./domain")[0].Imports {
		if strings.Contains(top(imp), ".") && !slices.Contains(pure, imp) {
			t.Errorf("domain imports %s, which is not of the standard library", imp)
		}
		if slices.Contains(impure, imp) {
			t.Errorf("domain imports %s, which gives it a clock, randomness, goroutines or I/O", imp)
		}
	}
}

// A pool that is made elsewhere would keep its connections to a demoted server.
func TestPoolsOfPostgresAreMadeInOnePlace(t *testing.T) {
	for _, p := range listPackages(t, "./...") {
		rel, _ := ours(p.ImportPath)
		if rel == "primary" || matches("test/**", rel) {
			continue
		}
		for _, file := range p.GoFiles {
			b, err := os.ReadFile(path.Join("..", rel, file))
			if err != nil {
				t.Fatal(err)
			}
			for _, made := range []string{"pgxpool.New", "pgxpool.ParseConfig", "pgx.Connect(", `sql.Open("pgx"`} {
				if strings.Contains(string(b), made) {
					t.Errorf("%s/%s has %s: use package primary", rel, file, made)
				}
			}
		}
	}
}
