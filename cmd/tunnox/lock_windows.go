package main

import (
	"errors"
	"os"

	"golang.org/x/sys/windows"
)

// locked is the locked byte: one far after the content, so that others can still read
// the content.
var locked = windows.Overlapped{OffsetHigh: 1}

// lockFile locks a file for this process alone, and does not wait.
func lockFile(file *os.File) error {
	at := locked
	err := windows.LockFileEx(windows.Handle(file.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, &at)
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
		return errHeld
	}
	return err
}

func unlockFile(file *os.File) error {
	at := locked
	return windows.UnlockFileEx(windows.Handle(file.Fd()), 0, 1, 0, &at)
}
