package guide

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/programs"
)

func TestMain(m *testing.M) { programs.Main(m) }

const limit = 30 * time.Second

// walk is a reader on the way through a page.
type walk struct {
	t        *testing.T
	page     string
	machines map[string]string // home directory by name
	binds    [][2]string       // what the page says and what it is here, the longest first
	tools    string            // directory of programs that stand for others
	running  map[string][]*programs.Process
	ports    int // the first public port of this walk
}

// follow walks through a page. binds are pairs: a word of the page, as a port of a
// service, and what it is here. A service of the page runs before follow is called.
func follow(t *testing.T, page string, binds ...string) *walk {
	t.Helper()
	w := newWalk(t, page, binds...)
	w.follow()
	return w
}

// newWalk prepares a walk, for a test that adds tools.
func newWalk(t *testing.T, page string, binds ...string) *walk {
	t.Helper()
	w := &walk{t: t, page: page, machines: map[string]string{}, tools: t.TempDir(), running: map[string][]*programs.Process{}}
	w.tool("tunnox", "exec "+filepath.Join(programs.Build(t), "tunnox")+` "$@"`)
	// Servers of other tests have the usual ports.
	w.ports = programs.FreePort(t)
	w.tool("tunnoxd", fmt.Sprintf("TUNNOX_PUBLIC_ADDRESS=127.0.0.1 TUNNOX_PUBLIC_PORTS=%d-%d ", w.ports, w.ports+9)+"TUNNOX_LISTEN=127.0.0.1:0 TUNNOX_API=127.0.0.1:0 TUNNOX_METRICS=127.0.0.1:0 TUNNOX_BRIDGE=127.0.0.1:0 exec "+
		filepath.Join(programs.Build(t), "tunnoxd")+` "$@"`)
	for i := 0; i < len(binds); i += 2 {
		w.bind(binds[i], binds[i+1])
	}
	return w
}

func (w *walk) follow() {
	t := w.t
	t.Helper()
	for at, text := range filesOf(t, w.page) {
		if err := os.WriteFile(filepath.Join(w.home(at[0]), at[1]), []byte(w.here(text)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range stepsOf(t, w.page) {
		w.step(s)
		if t.Failed() {
			return
		}
	}
}

// home gives the home directory of a machine; it begins empty.
func (w *walk) home(machine string) string {
	if w.machines[machine] == "" {
		w.machines[machine] = w.t.TempDir()
	}
	return w.machines[machine]
}

func (w *walk) bind(said, here string) {
	w.binds = append(w.binds, [2]string{said, here})
	slices.SortStableFunc(w.binds, func(a, b [2]string) int { return len(b[0]) - len(a[0]) })
}

var wordEnd = regexp.MustCompile(`[0-9A-Za-z_]$`)

// here replaces the words of the page by what they are here, each once.
func (w *walk) here(text string) string {
	if len(w.binds) == 0 {
		return text
	}
	var all []string
	here := map[string]string{}
	for _, b := range w.binds {
		if _, known := here[b[0]]; !known {
			quoted := regexp.QuoteMeta(b[0])
			if wordEnd.MatchString(b[0]) {
				quoted += `\b`
			}
			all = append(all, quoted)
		}
		here[b[0]] = b[1] // the latest is what the page means now
	}
	word := regexp.MustCompile(`(^|[^0-9A-Za-z_-])(` + strings.Join(all, "|") + `)`)
	for from := 0; from < len(text); {
		at := word.FindStringSubmatchIndex(text[from:])
		if at == nil {
			break
		}
		new := here[text[from+at[4]:from+at[5]]]
		text = text[:from+at[4]] + new + text[from+at[5]:]
		from += at[4] + len(new)
	}
	return text
}

// step runs a command. One that shows its output and does not end stays, as a program in
// the foreground does; "^C" ends the last one of its machine.
func (w *walk) step(s step) {
	w.t.Helper()
	if s.command == "^C" {
		all := w.running[s.machine]
		if err := all[len(all)-1].Stop(); err != nil {
			w.t.Errorf("%s:%d: %v", w.page, s.line, err)
		}
		w.running[s.machine] = all[:len(all)-1]
		return
	}
	command := w.here(s.command)
	p := programs.Start(w.t, "/bin/sh", w.environment(s.machine), "-c", "cd \"$HOME\"\n"+foreground(command))
	p.Name = fmt.Sprintf("%s:%d: %s$ %s", w.page, s.line, s.machine, command)
	for _, line := range s.shows {
		pattern, words := patternOf(w.here(line))
		_, said := patternOf(line)
		found := p.Says(`(?s)`+pattern.String(), limit)
		for i := range words {
			w.learn(said[i], found[i+1])
		}
	}
	if s.command == "tunnoxd serve" || strings.HasPrefix(s.command, "tunnoxd serve ") {
		w.learn("tnxj_...", w.invitation(s.machine))
		return
	}
	if len(s.shows) > 0 && strings.Contains(s.shows[0], "ready: ") {
		w.running[s.machine] = append(w.running[s.machine], p)
		return
	}
	if err := p.Wait(limit); err != nil {
		w.t.Errorf("%s: %v\n%s", p.Name, err, p.Said(4<<10))
	}
}

// foreground makes the shell become the program, so that it gets the signals.
func foreground(command string) string {
	if strings.ContainsAny(command, "|;&>$(") {
		return command
	}
	return "exec " + command
}

func (w *walk) environment(machine string) []string {
	env := []string{"PATH=" + w.tools + ":" + os.Getenv("PATH"), "HOME=" + w.home(machine)}
	var bound struct{ API string }
	if text, err := os.ReadFile(filepath.Join(w.home(machine), "tunnox-data", "addresses.json")); err == nil && json.Unmarshal(text, &bound) == nil {
		env = append(env, "TUNNOX_API=http://"+bound.API)
	}
	return env
}

// invitation waits for the code that a first start makes.
func (w *walk) invitation(machine string) string {
	w.t.Helper()
	file := filepath.Join(w.home(machine), "tunnox-data", "join")
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if text, err := os.ReadFile(file); err == nil && len(text) > 0 {
			return strings.TrimPrefix(strings.TrimSpace(string(text)), "tunnox join ")
		}
	}
	w.t.Fatalf("%s: no invitation in %s", w.page, file)
	return ""
}

// learn binds a word of the page to what was seen in its place. A host with a port also
// binds its two parts.
func (w *walk) learn(said, here string) {
	w.bind(said, here)
	saidHost, saidPort, err1 := net.SplitHostPort(said)
	hereHost, herePort, err2 := net.SplitHostPort(here)
	if err1 == nil && err2 == nil {
		w.bind(saidHost, hereHost)
		w.bind(saidPort, herePort)
	}
}

// tool makes a program that stands for another one, as a shell script.
func (w *walk) tool(name, script string) {
	// A child that another test forks now would hold the file open for writing until it
	// executes its own program, and the system executes no such file (golang/go#22315).
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err := os.WriteFile(filepath.Join(w.tools, name), []byte("#!/bin/sh\n"+script), 0o700); err != nil {
		w.t.Fatal(err)
	}
}
