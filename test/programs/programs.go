// Package programs runs the real programs, tunnoxd and tunnox, for tests and
// measurements of the whole.
//
// Its duty: [Build] builds both once for each test binary. [Serve], [Start] and [Join]
// run them as processes of their own that end with the test, and [API] calls their REST
// API as a script would. The output of a process is shown when its test fails. Every
// wait is for a condition, with a deadline.
//
// Its limit: it knows the programs only by their documented contract (flags,
// addresses.json, the join line, the API) and imports nothing of them, so that it
// breaks when the contract does.
package programs

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tunnox-net/tunnox/test/pace"
	"github.com/tunnox-net/tunnox/test/services"
)

var built struct {
	once sync.Once
	dir  string
	err  error
}

// Build builds both programs once, and gives their directory. TUNNOX_TEST_BIN names a
// directory with built programs to use instead.
func Build(t testing.TB) string {
	t.Helper()
	built.once.Do(func() {
		if built.dir = os.Getenv("TUNNOX_TEST_BIN"); built.dir != "" {
			return
		}
		built.dir, built.err = build()
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return built.dir
}

func build() (string, error) {
	mod, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("find the module: %w", err)
	}
	dir, err := os.MkdirTemp("", "tunnox-bin-")
	if err != nil {
		return "", err
	}
	services.AtExit(func() { _ = os.RemoveAll(dir) })
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	args := []string{"build", "-o", dir + "/"}
	if pace.Race {
		args = append(args, "-race") // a race makes a program end with a status that is not 0
	}
	cmd := exec.CommandContext(ctx, "go", append(args, "./cmd/tunnoxd", "./cmd/tunnox")...)
	cmd.Dir = filepath.Dir(strings.TrimSpace(string(mod)))
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the programs: %w\n%s", err, out)
	}
	return dir, nil
}

// Main is the body of TestMain: it runs the tests, ends the servers and removes
// the programs, and checks that no goroutine is left.
func Main(m *testing.M, options ...goleak.Option) { services.Main(m, options...) }

// Eventually polls until check gives nil, and fails the test with its last error
// after the limit.
func Eventually(t testing.TB, limit time.Duration, check func() error) {
	t.Helper()
	if err := Poll(limit, check); err != nil {
		t.Fatal(err)
	}
}

// Poll calls check until it gives nil or the limit, which is of work (see package
// pace), is over, and returns its last error.
func Poll(limit time.Duration, check func() error) error {
	began := time.Now()
	if err := pace.Poll(limit, 20*time.Millisecond, check); err != nil {
		return fmt.Errorf("not within %v of work, which took %v: %w", limit, time.Since(began).Round(time.Millisecond), err)
	}
	return nil
}
