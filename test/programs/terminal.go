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
	"time"

	"golang.org/x/sys/unix"
)

// talkLimit is how long a program on a terminal may take.
const talkLimit = 30 * time.Second

// OnTerminal runs a built program to its end, as a person does, and gives the text on
// its terminal. Standard output and errors are both there.
func OnTerminal(t testing.TB, program string, args ...string) (string, error) {
	t.Helper()
	return Talk(t, t.TempDir(), nil, nil, program, args...)
}

// Reply is the text that a person types when To is on the terminal.
type Reply struct{ To, Type string }

// Talk is OnTerminal for a program that asks: each reply is typed, in order, when its
// question has been shown. The program's home is dir.
func Talk(t testing.TB, dir string, env []string, replies []Reply, program string, args ...string) (string, error) {
	t.Helper()
	terminal, screen, err := openTerminal()
	if err != nil {
		return "", fmt.Errorf("open a pseudo-terminal: %w", err)
	}
	cmd := exec.Command(filepath.Join(Build(t), program), args...)
	cmd.Dir = dir
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + cmd.Dir, "TZ=UTC", "TERM=xterm"}, env...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = terminal, terminal, terminal
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	err = cmd.Start()
	_ = terminal.Close() // the program has its own
	if err != nil {
		_ = screen.Close()
		return "", err
	}
	hung := time.AfterFunc(talkLimit, func() { _ = cmd.Process.Kill() }) // it waits for input that never comes
	defer hung.Stop()
	var shown strings.Builder
	read, buffer := 0, make([]byte, 4096)
	for {
		n, err := screen.Read(buffer)
		shown.Write(buffer[:n])
		if len(replies) > 0 {
			if at := strings.Index(shown.String()[read:], replies[0].To); at >= 0 {
				read += at + len(replies[0].To)
				_, _ = io.WriteString(screen, replies[0].Type) // if the program has ended, the status below shows it
				replies = replies[1:]
			}
		}
		if err != nil { // EIO when the program has ended
			break
		}
	}
	err = cmd.Wait()
	if err == nil && len(replies) > 0 {
		err = fmt.Errorf("the program never showed %q", replies[0].To)
	}
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
