// Package cli tests the contract with scripts: the flags, files, messages and exit
// codes of tunnoxd and tunnox. Its tests are scripts that run the real programs.
package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/tunnox-net/tunnox/test/programs"
	"github.com/tunnox-net/tunnox/test/services"
)

func TestMain(m *testing.M) { programs.Main(m) }

func TestScripts(t *testing.T) {
	bin := programs.Build(t)
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			env.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("ANY", "127.0.0.1:0")
			env.Setenv("TUNNOX_FIRST_INVITE", "off") // scripts count what they make; join.txt tests the invitation
			env.Values[testingKey{}] = t
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "ready": ready, "until": until, "mode": mode,
			"field": field, "freeport": freeport, "join": join, "services": startServices, "echo": echo, "ask": ask, "occupy": occupy,
		},
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
	})
}

// limit bounds how long a condition may take to become true.
const limit = 20 * time.Second

// poll gives the last error if check never gave nil.
func poll(ts *testscript.TestScript, check func() error) {
	ts.Check(programs.Poll(limit, check))
}

// exits CODE PROGRAM ARG... runs a program that must end with the status.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if neg || got != want {
		ts.Fatalf("%s ended with %d, want %d", args[1], got, want)
	}
}

// ready DIR waits until the server of a data directory is ready, and sets API, AGENTS
// and METRICS to its addresses.
func ready(ts *testscript.TestScript, _ bool, args []string) {
	path := filepath.Join(ts.MkAbs(args[0]), "addresses.json")
	poll(ts, func() error {
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		var bound map[string]string
		if err := json.Unmarshal(b, &bound); err != nil {
			return err
		}
		for name, address := range bound {
			ts.Setenv(strings.ToUpper(name), address)
		}
		resp, err := http.Get("http://" + bound["api"] + "/ready")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("not ready: %s", resp.Status)
		}
		return nil
	})
	ts.Setenv("TUNNOX_API", "http://"+ts.Getenv("API"))
	if key, err := os.ReadFile(filepath.Join(ts.MkAbs(args[0]), "api-key")); err == nil {
		ts.Setenv("TUNNOX_API_KEY", strings.TrimSpace(string(key)))
	}
	http.DefaultClient.CloseIdleConnections()
}

// join FILE reads the join line a server printed and sets SERVER and PIN.
func join(ts *testscript.TestScript, _ bool, args []string) {
	pattern := regexp.MustCompile(`tunnox agent --server (\S+) --pin (sha256:\S+)`)
	path := ts.MkAbs(args[0])
	poll(ts, func() error {
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		found := pattern.FindStringSubmatch(string(b))
		if found == nil {
			return fmt.Errorf("no join line in %q", b)
		}
		ts.Setenv("SERVER", found[1])
		ts.Setenv("PIN", found[2])
		return nil
	})
}

// until PATTERN PROGRAM ARG... runs a program until its output matches.
func until(ts *testscript.TestScript, _ bool, args []string) {
	pattern := regexp.MustCompile(args[0])
	poll(ts, func() error {
		err := ts.Exec(args[1], args[2:]...)
		if out := ts.ReadFile("stdout"); !pattern.MatchString(out) {
			return fmt.Errorf("%v: output does not match %s: %v\n%s", args[1:], args[0], err, out)
		}
		return nil
	})
}

// field VAR NAME sets VAR to a field of the JSON object the last program printed.
func field(ts *testscript.TestScript, _ bool, args []string) {
	var o map[string]any
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &o))
	switch v := o[args[1]].(type) {
	case string:
		ts.Setenv(args[0], v)
	case float64:
		ts.Setenv(args[0], strconv.FormatInt(int64(v), 10))
	default:
		ts.Fatalf("field %s is %v", args[1], v)
	}
}

// mode OCTAL FILE... checks permissions.
func mode(ts *testscript.TestScript, _ bool, args []string) {
	for _, file := range args[1:] {
		info, err := os.Stat(ts.MkAbs(file))
		ts.Check(err)
		if got := fmt.Sprintf("%04o", info.Mode().Perm()); got != args[0] {
			ts.Fatalf("%s has mode %s, want %s", file, got, args[0])
		}
	}
}

// freeport VAR sets VAR to a port that was free a moment ago.
func freeport(ts *testscript.TestScript, _ bool, args []string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Setenv(args[0], strconv.Itoa(l.Addr().(*net.TCPAddr).Port))
	ts.Check(l.Close())
}

// echo VAR opens an echo service and sets VAR to its port.
func echo(ts *testscript.TestScript, _ bool, args []string) {
	t := ts.Value(testingKey{}).(testing.TB)
	ts.Setenv(args[0], strconv.Itoa(programs.Listen(t, programs.Echo).Port))
}

// occupy PORT listens on a port, so that nobody else can.
func occupy(ts *testscript.TestScript, _ bool, args []string) {
	var l net.Listener
	poll(ts, func() (err error) { // who had it may be closing it
		l, err = net.Listen("tcp", "127.0.0.1:"+args[0])
		return err
	})
	ts.Defer(func() { _ = l.Close() })
}

// ask PORT TEXT sends a text until it comes back.
func ask(ts *testscript.TestScript, _ bool, args []string) {
	port, err := strconv.Atoi(args[0])
	ts.Check(err)
	poll(ts, func() error {
		got, err := programs.Ask(port, []byte(args[1]))
		if err == nil && string(got) != args[1] {
			err = fmt.Errorf("got %q", got)
		}
		return err
	})
}

// services sets POSTGRES and REDIS to the URLs of empty databases.
func startServices(ts *testscript.TestScript, _ bool, _ []string) {
	t := ts.Value(testingKey{}).(testing.TB)
	ts.Setenv("POSTGRES", services.Postgres(t))
	ts.Setenv("REDIS", services.Redis(t))
}

type testingKey struct{}
