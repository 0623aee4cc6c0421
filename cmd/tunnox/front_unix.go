//go:build unix

package main

import (
	"os"

	"golang.org/x/sys/unix"
)

// atFront tells whether this program is the one that the terminal belongs to. One in the
// background would be stopped when it changes the terminal, and would draw over others.
func atFront(terminal *os.File) bool {
	group, err := unix.IoctlGetInt(int(terminal.Fd()), unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}
