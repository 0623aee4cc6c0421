// Package daemon has a program run as a service of the machine: by systemd, launchd or
// Windows.
//
// Its duty is that each of its steps may be repeated: two installs, or one that was
// killed and one after it, come to the same state, and so do two uninstalls. Its limits:
// what the program is and under which account it runs is said by its callers, and no
// secret is among it, because units and command lines are read by everybody.
package daemon

import (
	"context"
	"errors"
)

// Service is a program to run, for as long as the machine does.
type Service struct {
	Name        string // of the service: letters, digits and -
	Description string
	Program     string   // absolute path
	Arguments   []string // everybody on the machine can read them
	// Account is the one it runs as where the manager is the machine's; "" leaves that to
	// the unit, or to the manager.
	Account string
	// Unit is the whole unit for systemd; see [Unit].
	Unit string
}

// State is what a manager says of a service.
type State struct {
	Installed bool
	Enabled   bool // it starts with the machine
	Running   bool
	PID       int    // 0: not known
	Detail    string // in the words of the manager
}

// Manager starts services and keeps them running.
type Manager interface {
	// Install makes the service start with the machine, and starts it. One that is
	// installed is brought to what s says.
	Install(ctx context.Context, s Service) error
	// Uninstall ends the service and removes what Install made. It tells whether there
	// was anything.
	Uninstall(ctx context.Context, name string) (was bool, err error)
	Start(ctx context.Context, name string) error
	Stop(ctx context.Context, name string) error
	State(ctx context.Context, name string) (State, error)
	// Log is the command that shows the log of the service, "" when there is none.
	Log(name string) string
}

// ErrNotInstalled: there is no such service.
var ErrNotInstalled = errors.New("daemon: the service is not installed")
