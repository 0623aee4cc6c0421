package daemon

import (
	"context"
	"errors"
	"fmt"

	"github.com/kardianos/service"
)

// installed is what the library does with one service.
type installed interface {
	Install() error
	Uninstall() error
	Start() error
	Stop() error
	Status() (service.Status, error)
}

// Library is launchd, Windows, and others that the library knows.
type Library struct {
	// User: services of one user, where the system has such.
	User bool
	// Open gives the service of a name; nil asks the system.
	Open func(Service) (installed, error)
}

func (m *Library) open(s Service) (installed, error) {
	if m.Open != nil {
		return m.Open(s)
	}
	return service.New(nothing{}, &service.Config{Name: s.Name, DisplayName: s.Name, Description: s.Description, Executable: s.Program,
		Arguments: s.Arguments, UserName: s.Account, Option: service.KeyValue{
			"UserService": m.User, "RunAtLoad": true, "KeepAlive": true, // launchd
			"StartType": "automatic", "OnFailure": "restart", "OnFailureDelayDuration": "1s", // Windows
		}})
}

// nothing is for a service that another process runs.
type nothing struct{}

func (nothing) Start(service.Service) error { return nil }
func (nothing) Stop(service.Service) error  { return nil }

// Install implements [Manager]. The library refuses a service that is there, so one that
// is there is removed before.
func (m *Library) Install(_ context.Context, s Service) error {
	one, err := m.open(s)
	if err != nil {
		return fmt.Errorf("install the service: %w", err)
	}
	if there(one) {
		_ = one.Stop() // it may not run
		if err := one.Uninstall(); err != nil {
			return fmt.Errorf("install the service: remove the one that is there: %w", err)
		}
	}
	if err := one.Install(); err != nil {
		return fmt.Errorf("install the service: %w", err)
	}
	if err := one.Start(); err != nil {
		return fmt.Errorf("start the service: %w", err)
	}
	return nil
}

// there tells whether the service is installed; one that cannot be asked is.
func there(one installed) bool {
	_, err := one.Status()
	return !errors.Is(err, service.ErrNotInstalled)
}

// Uninstall implements [Manager].
func (m *Library) Uninstall(_ context.Context, name string) (was bool, err error) {
	one, err := m.open(Service{Name: name})
	if err != nil || !there(one) {
		return false, err
	}
	_ = one.Stop() // it may not run
	if err := one.Uninstall(); err != nil {
		return true, fmt.Errorf("uninstall the service: %w", err)
	}
	return true, nil
}

// Start implements [Manager].
func (m *Library) Start(_ context.Context, name string) error {
	return m.tell(name, installed.Start)
}

// Stop implements [Manager].
func (m *Library) Stop(_ context.Context, name string) error { return m.tell(name, installed.Stop) }

func (m *Library) tell(name string, do func(installed) error) error {
	one, err := m.open(Service{Name: name})
	switch {
	case err != nil:
		return err
	case !there(one):
		return ErrNotInstalled
	}
	return do(one)
}

// State implements [Manager].
func (m *Library) State(_ context.Context, name string) (State, error) {
	one, err := m.open(Service{Name: name})
	if err != nil {
		return State{}, err
	}
	switch status, err := one.Status(); {
	case errors.Is(err, service.ErrNotInstalled):
		return State{}, nil
	case err != nil:
		return State{Installed: true}, err
	case status == service.StatusRunning:
		return State{Installed: true, Enabled: true, Running: true, Detail: "running"}, nil
	default:
		return State{Installed: true, Enabled: true, Detail: "stopped"}, nil
	}
}

// Log implements [Manager].
func (m *Library) Log(string) string { return "" }
