package programs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/pace"
)

// stopLimit bounds an orderly end, with its drain.
const stopLimit = 15 * time.Second

// Process is a running program of ours.
type Process struct {
	Name string

	t    testing.TB
	cmd  *exec.Cmd
	log  string        // the file with the whole output
	done chan struct{} // closed when it was reaped
	err  error         // how it ended; read after done

	failing bool // the process should end with another status than 0
}

var processNumber atomic.Int64

// Start runs a built program; a program that is not ours is named by its whole path.
// Its environment is env and what every program needs: TUNNOX_ variables of the person
// who runs the tests are not passed on. The process is ended in order with the test,
// and must then end with status 0.
func Start(t testing.TB, program string, env []string, args ...string) *Process {
	t.Helper()
	p := &Process{Name: program, t: t, done: make(chan struct{})}
	if len(args) > 0 {
		p.Name += " " + args[0]
	}
	file := program
	if !filepath.IsAbs(file) {
		file = filepath.Join(Build(t), file)
	}
	p.log = filepath.Join(t.TempDir(), fmt.Sprintf("%s-%d.log", filepath.Base(file), processNumber.Add(1)))
	log, err := os.Create(p.log)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = log.Close() }() // the child has its own descriptor
	p.cmd = exec.Command(file, args...)
	p.cmd.Dir = t.TempDir()
	p.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + p.cmd.Dir, "TZ=UTC"}, env...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.run(); err != nil {
		t.Fatalf("start %s: %v", p.Name, err)
	}
	t.Cleanup(func() {
		if err := p.Stop(); err != nil {
			t.Errorf("%v", err)
		}
		if t.Failed() {
			t.Logf("%s said:\n%s", p.Name, p.Said(8<<10))
		}
	})
	return p
}

// run starts and reaps the process on one thread: the kernel sends Pdeathsig when
// the thread that forked ends, and Go may end a thread at any time.
func (p *Process) run() error {
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(p.done)
		err := p.cmd.Start()
		started <- err
		if err == nil {
			p.err = p.cmd.Wait()
		}
	}()
	return <-started
}

// PID is the process's id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Kill ends the process as kill -9 does and waits until it is gone.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // fails when it is gone already
	<-p.done
}

// Stop ends the process in order. It gives an error if the process does not end within
// a limit or ends with another status than 0; a process that Kill ended is fine.
func (p *Process) Stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); errors.Is(err, os.ErrProcessDone) {
		return p.ended()
	}
	select {
	case <-p.done:
		return p.ended()
	case <-time.After(stopLimit):
		// The stacks of all goroutines show what it waits for.
		_ = p.cmd.Process.Signal(syscall.SIGQUIT)
		select {
		case <-p.done:
		case <-time.After(2 * time.Second):
			p.Kill()
		}
		return fmt.Errorf("%s did not end within %v of SIGTERM", p.Name, stopLimit)
	}
}

// Fails waits until the process ends with another status than 0, as it should, and
// gives the status.
func (p *Process) Fails(limit time.Duration) int {
	p.t.Helper()
	p.failing = true
	if err := p.Wait(limit); err == nil || !p.Exited() {
		p.t.Errorf("%s should end with a failure: %v", p.Name, err)
		return 0
	}
	return p.cmd.ProcessState.ExitCode()
}

// Abandon ends the process and ignores its status.
func (p *Process) Abandon() {
	p.failing = true
	p.Kill()
}

// Wait gives how the process ended: nil for status 0. The limit is of work (see package
// pace).
func (p *Process) Wait(limit time.Duration) error {
	if pace.Until(limit, 10*time.Millisecond, p.Exited) {
		return p.err
	}
	return fmt.Errorf("%s still runs after %v of work", p.Name, limit)
}

// Exited reports whether the process has ended.
func (p *Process) Exited() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

func (p *Process) ended() error {
	<-p.done
	if status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() && status.Signal() == syscall.SIGKILL {
		return nil
	}
	if p.err != nil && !p.failing {
		return fmt.Errorf("%s ended with %w", p.Name, p.err)
	}
	return nil
}

// Said gives the last bytes of the process's output, at most limit.
func (p *Process) Said(limit int) string {
	b, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	if len(b) > limit {
		b = b[len(b)-limit:]
		b = b[bytes.IndexByte(b, '\n')+1:]
	}
	return string(b)
}

// Says waits until the output of the process matches and gives the match with its
// groups. It fails at once when the process ends without such output.
func (p *Process) Says(expr string, limit time.Duration) []string {
	p.t.Helper()
	pattern := regexp.MustCompile(expr)
	var found []string
	err := Poll(limit, func() error {
		gone := p.Exited() // before reading: the last output counts too
		if found = pattern.FindStringSubmatch(p.Said(1 << 20)); found != nil || gone {
			return nil
		}
		return fmt.Errorf("%s does not say %s", p.Name, expr)
	})
	if err != nil {
		p.t.Fatal(err)
	}
	if found == nil {
		p.t.Fatalf("%s ended (%v) and did not say %s:\n%s", p.Name, p.err, expr, p.Said(8<<10))
	}
	return found
}

// Args are the arguments that the process was started with.
func (p *Process) Args() []string { return slices.Clone(p.cmd.Args[1:]) }
