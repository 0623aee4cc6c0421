package services

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// nobody is the user and group id of Debian's nobody:nogroup, which the servers
// run as when the tests run as root: databases refuse to run as root.
const nobody = 65534

// process is a child that dies with the test binary.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when the child was reaped
}

// startProcess starts the command, as nobody if we are root, so that the kernel kills
// it when this process dies. The kernel ties this to the THREAD that forked: if Go
// ended that thread, the server would be killed in the middle of the tests. So one
// goroutine keeps its thread from fork to reaping.
func startProcess(cmd *exec.Cmd) (*process, error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if os.Getuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
	}
	cmd.Dir = "/"
	p := &process{cmd: cmd, done: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(p.done)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // the status of a killed server does not matter
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

func (p *process) exited() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// end signals the child and waits; one that does not stop in time is killed.
func (p *process) end(sig syscall.Signal) {
	_ = p.cmd.Process.Signal(sig) // fails when it is gone already
	select {
	case <-p.done:
	case <-time.After(10 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// privateDir makes a directory that the server's user owns. It lies directly
// under the system's temporary directory, because a test's own is closed to
// other users and a socket's path must be shorter than 108 bytes.
func privateDir(prefix string) (string, error) {
	dir, err := os.MkdirTemp("", prefix)
	if err != nil {
		return "", fmt.Errorf("directory for a test server: %w", err)
	}
	if os.Getuid() == 0 {
		if err := os.Chown(dir, nobody, nobody); err != nil {
			return "", errors.Join(err, os.RemoveAll(dir))
		}
	}
	return dir, nil
}

// freePort gives a loopback port that was free a moment ago.
func freePort() (int, error) {
	// Ports of the system's choice are those of outgoing connections too, so that another
	// test's connection could have one before the server does. Those of package programs
	// are above these. No port is given twice.
	const lowest, count = 2000, 6000
	given.mu.Lock()
	defer given.mu.Unlock()
	last := errors.New("all were given")
	for range 4 * count {
		port := lowest + rand.IntN(count)
		if given.ports[port] {
			continue
		}
		l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
		if err == nil {
			given.ports[port] = true
			return port, l.Close()
		}
		last = err
	}
	return 0, fmt.Errorf("find a free port: %w", last)
}

// given are the ports that freePort has given.
var given = struct {
	mu    sync.Mutex
	ports map[int]bool // guarded by mu
}{ports: map[int]bool{}}

// findBinary looks in PATH and then in dirs; the error names the Debian package
// to install.
func findBinary(name, pkg string, dirs ...string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	for _, dir := range dirs {
		path := filepath.Join(dir, name)
		if st, err := os.Stat(path); err == nil && st.Mode().IsRegular() {
			return path, nil
		}
	}
	return "", fmt.Errorf("the tests need %s: apt-get install %s", name, pkg)
}
