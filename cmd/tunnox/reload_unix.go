//go:build !windows

package main

import (
	"os"
	"syscall"
)

// reloadSignals ask tunnox up to read its file again.
var reloadSignals = []os.Signal{syscall.SIGHUP}
