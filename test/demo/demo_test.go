package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/programs"
)

// TestMain lets the test binary be the demo too, as a process that can be
// signalled.
func TestMain(m *testing.M) {
	if os.Getenv("DEMO_IS_THIS") != "" {
		main()
		return
	}
	programs.Main(m)
}

// startDemo starts the demo at the top of the repository, with its files in a directory
// of its own. The programs are shared: building them four times takes longer than the
// tests.
func startDemo(t *testing.T, environ ...string) (cmd *exec.Cmd, out *transcript, dir string) {
	t.Helper()
	dir = t.TempDir()
	cmd = exec.Command(os.Args[0])
	cmd.Dir = filepath.Join("..", "..")
	cmd.Env = append(os.Environ(), append(environ, "DEMO_IS_THIS=1", "TMPDIR="+dir, "DEMO_BIN="+programs.Build(t),
		"TUNNOX_API_KEY=of-the-shell-and-none-of-the-demos-business")...)
	out = &transcript{}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = dieWithParent()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // gone, unless the test failed
		if t.Failed() {
			t.Logf("the demo said:\n%s", out)
		}
	})
	return cmd, out, dir
}

// childrenOf gives the children of a demo, which name its directory in their arguments
// or their path.
func childrenOf(dir string) []string {
	var found []string
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline") // the pattern is well-formed
	for _, file := range files {
		b, err := os.ReadFile(file)
		if line := string(bytes.ReplaceAll(b, []byte{0}, []byte{' '})); err == nil && strings.Contains(line, dir) {
			found = append(found, line)
		}
	}
	return found
}

func noChildren(t *testing.T, dir string) {
	t.Helper()
	programs.Eventually(t, 5*time.Second, func() error {
		if left := childrenOf(dir); len(left) > 0 {
			return fmt.Errorf("left behind: %q", left)
		}
		return nil
	})
}

func TestDemoLeavesNothingBehind(t *testing.T) {
	t.Run("after one check", func(t *testing.T) {
		cmd, out, dir := startDemo(t, "ONCE=1")
		if err := cmd.Wait(); err != nil {
			t.Fatalf("ended with %v", err)
		}
		for _, want := range []string{"Everything worked", "GET http://127.0.0.1:", "mapping_created", "/docs", "tunnox agent --server", "came back equal"} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("it does not say %q", want)
			}
		}
		noChildren(t, dir)
		if left, err := filepath.Glob(filepath.Join(dir, "tunnox-demo-*")); err != nil || len(left) > 0 {
			t.Errorf("files left behind: %v, %v", left, err)
		}
	})
	for name, signal := range map[string]syscall.Signal{"after Ctrl-C": syscall.SIGINT, "terminated": syscall.SIGTERM, "killed": syscall.SIGKILL} {
		t.Run(name, func(t *testing.T) {
			cmd, out, dir := startDemo(t)
			programs.Eventually(t, time.Minute, func() error {
				if !strings.Contains(out.String(), "until Ctrl-C") {
					return fmt.Errorf("not up:\n%s", out)
				}
				return nil
			})
			if len(childrenOf(dir)) != 3 {
				t.Errorf("running: %q, want a server and two agents", childrenOf(dir))
			}
			if err := cmd.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			if err := cmd.Wait(); (err != nil) != (signal == syscall.SIGKILL) {
				t.Errorf("ended with %v", err)
			}
			noChildren(t, dir)
		})
	}
}

func TestDemoFailsWhenSomethingDoes(t *testing.T) {
	cmd, out, dir := startDemo(t, "ONCE=1", "PATH=/nonexistent") // no go to build with
	if err := cmd.Wait(); err == nil {
		t.Error("ended with 0")
	}
	if !strings.Contains(out.String(), "demo: build") {
		t.Errorf("it does not say what failed:\n%s", out)
	}
	noChildren(t, dir)
}
