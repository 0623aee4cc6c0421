package programs

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// OnTerminal runs a built program to its end, as a person does, and gives what
// stood on its terminal. Standard output and errors are both there.
func OnTerminal(t testing.TB, program string, args ...string) (string, error) {
	t.Helper()
	terminal, screen, err := openTerminal()
	if err != nil {
		return "", fmt.Errorf("open a pseudo-terminal: %w", err)
	}
	cmd := exec.Command(filepath.Join(Build(t), program), args...)
	cmd.Dir = t.TempDir()
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + cmd.Dir, "TZ=UTC", "TERM=xterm"}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = terminal, terminal, terminal
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	err = cmd.Start()
	_ = terminal.Close() // the program has its own
	if err != nil {
		_ = screen.Close()
		return "", err
	}
	var shown strings.Builder
	_, _ = io.Copy(&shown, screen) // ends with EIO when the program has
	err = cmd.Wait()
	_ = screen.Close()
	return shown.String(), err
}

// openTerminal gives both ends of a new pseudo-terminal.
func openTerminal() (terminal, screen *os.File, err error) {
	screen, err = os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, err
	}
	number, err := unix.IoctlGetInt(int(screen.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(screen.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	}
	if err != nil {
		_ = screen.Close()
		return nil, nil, err
	}
	return terminal, screen, nil
}
