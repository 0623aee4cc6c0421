package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// errHeld is what lockFile gives when another process holds the file.
var errHeld = errors.New("another process holds it")

// heldError is errHeld with a sentence for people.
type heldError struct{ text string }

func (e heldError) Error() string   { return e.text }
func (heldError) Is(err error) bool { return err == errHeld }

// lockState makes this process the only agent on the machine with an identity of the
// state directory, until the given function is called. A second one would fence the
// first at the server, and take its socket. The kernel lets go of a lock when its
// process dies, however it dies.
func lockState(state string, clientID int64, log *slog.Logger) (release func(), err error) {
	path := strings.TrimSuffix(socketPath(state, clientID), ".sock") + ".lock"
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("make the state directory: %w", err)
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the state directory: %w", err)
	}
	switch err := lockFile(file); {
	case errors.Is(err, errHeld):
		holder := make([]byte, 32)
		n, _ := file.ReadAt(holder, 0) // only for the message
		_ = file.Close()
		return nil, heldError{fmt.Sprintf("an agent of this machine runs with this identity already%s, in %s\n  see it with tunnox agent status --state %s; for a second agent with another identity give another --state",
			holderText(string(holder[:n])), state, state)}
	case err != nil:
		// Some network file systems have no locks. The agent works all the same.
		log.Warn("the state directory cannot be locked; do not start a second agent with it", "error", err)
	}
	if err := file.Truncate(0); err == nil {
		_, _ = file.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0) // only for that message
	}
	return func() {
		_ = unlockFile(file) // before it is closed: a process forked at this moment has the descriptor too
		_ = file.Close()
	}, nil
}

func holderText(content string) string {
	if pid, err := strconv.Atoi(strings.TrimSpace(content)); err == nil {
		return fmt.Sprintf(" (process %d)", pid)
	}
	return ""
}
