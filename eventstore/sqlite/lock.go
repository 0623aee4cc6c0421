package sqlite

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// lockFile is held while the log is open. Two processes would each keep a head and ids
// of their own in memory. The kernel releases the lock when the process dies, however
// it dies.
type lockFile struct{ file *os.File }

func lockPath(path string) (*lockFile, error) {
	name := path + ".lock"
	file, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the log: %w", err)
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		holder := make([]byte, 32)
		n, _ := file.Read(holder) // only for the message
		_ = file.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("the log %s is in use by another process (pid %s); only one process at a time may open it", path, strings.TrimSpace(string(holder[:n])))
		}
		return nil, fmt.Errorf("lock the log: %w", err)
	}
	if err := file.Truncate(0); err == nil {
		_, _ = file.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0) // only for that message
	}
	return &lockFile{file: file}, nil
}

// release unlocks before it closes. A process that was forked at this moment has the
// descriptor, and so the lock, until it executes another program.
func (l *lockFile) release() error {
	return errors.Join(syscall.Flock(int(l.file.Fd()), syscall.LOCK_UN), l.file.Close())
}
