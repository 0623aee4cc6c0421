package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// build builds the programs, unless they are built: make demo builds them and shows the
// progress.
func build(ctx context.Context, bin string) error {
	if os.Getenv("DEMO_BUILT") != "" {
		return nil
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-o", bin+string(os.PathSeparator), "./cmd/tunnoxd", "./cmd/tunnox")
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("build: %w (run the demo from the top of the repository)", err)
	}
	return nil
}

// child is a program that the demo has started.
type child struct {
	name   string
	cmd    *exec.Cmd
	stdout *transcript
	stderr *transcript
	done   chan struct{} // closed when it was reaped; err is set then
	err    error
}

// children are all programs that the demo has started, in order.
type children struct {
	bin    string // where the programs are
	all    []*child
	failed chan error // the error of one that ended by itself
	ending bool       // guarded by mu
	mu     sync.Mutex
}

// start runs a program. It gets a process group of its own, so that Ctrl-C reaches it
// through end and not before. Where the system allows it, it dies with this process
// even when that is killed.
func (cs *children) start(name, program string, args, environ []string) (*child, error) {
	if cs.failed == nil {
		cs.failed = make(chan error, 1)
	}
	c := &child{name: name, cmd: exec.Command(filepath.Join(cs.bin, program), args...), stdout: &transcript{}, stderr: &transcript{}, done: make(chan struct{})}
	c.cmd.Env = append(withoutSettings(os.Environ()), environ...)
	c.cmd.Stdout, c.cmd.Stderr = c.stdout, c.stderr
	c.cmd.SysProcAttr = dieWithParent()
	begun := make(chan error, 1)
	go func() {
		// The kernel ties a child's life to the thread that forked it, so this
		// goroutine keeps its thread until the child is gone.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(c.done)
		err := c.cmd.Start()
		begun <- err
		if err != nil {
			return
		}
		c.err = c.cmd.Wait()
		cs.noteEnd(c)
	}()
	if err := <-begun; err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	cs.all = append(cs.all, c)
	return c, nil
}

// withoutSettings removes the settings of the caller's shell for other servers and
// agents, so that the demo always runs in the same way.
func withoutSettings(environ []string) []string {
	return slices.DeleteFunc(environ, func(entry string) bool { return strings.HasPrefix(entry, "TUNNOX_") })
}

func (cs *children) noteEnd(c *child) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.ending {
		return
	}
	select {
	case cs.failed <- fmt.Errorf("%s ended by itself (%v):\n%s", c.name, c.err, c.stderr):
	default:
	}
}

// end asks the programs to end, newest first, and waits for each. One that does
// not end in time is killed, and that is an error.
func (cs *children) end() error {
	cs.mu.Lock()
	cs.ending = true
	cs.mu.Unlock()
	var errs []error
	for i := len(cs.all) - 1; i >= 0; i-- {
		c := cs.all[i]
		_ = c.cmd.Process.Signal(syscall.SIGTERM) // fails when it is gone already
		select {
		case <-c.done:
		case <-time.After(20 * time.Second):
			errs = append(errs, fmt.Errorf("%s did not end within 20 s and was killed:\n%s", c.name, c.stderr), c.cmd.Process.Kill())
			<-c.done
		}
	}
	return errors.Join(errs...)
}

// transcript is what a program wrote.
type transcript struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (t *transcript) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.buf.Write(p)
}

func (t *transcript) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.buf.String()
}
