package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/tunnox-net/tunnox/wholefile"
)

// Systemd is the manager of most Linux systems.
type Systemd struct {
	// Dir is where units are: /etc/systemd/system, or that of a user.
	Dir string
	// User: services of one user, which need no rights.
	User bool
	// Control runs systemctl; nil runs the program.
	Control func(ctx context.Context, arguments ...string) (output string, err error)
}

func (m *Systemd) unit(name string) string { return name + ".service" }
func (m *Systemd) file(name string) string { return filepath.Join(m.Dir, m.unit(name)) }

func (m *Systemd) control(ctx context.Context, arguments ...string) (string, error) {
	if m.User {
		arguments = append([]string{"--user"}, arguments...)
	}
	if m.Control != nil {
		return m.Control(ctx, arguments...)
	}
	output, err := exec.CommandContext(ctx, "systemctl", arguments...).CombinedOutput()
	text := strings.TrimSpace(string(output))
	if err != nil {
		err = fmt.Errorf("systemctl %s: %w: %s", strings.Join(arguments, " "), err, text)
	}
	return text, err
}

// Install implements [Manager]. The unit is written before systemd is told, and every step
// is done again at a repeat, so it does not matter where an earlier one was killed.
func (m *Systemd) Install(ctx context.Context, s Service) error {
	if err := os.MkdirAll(m.Dir, 0o755); err != nil {
		return fmt.Errorf("install the service: %w", err)
	}
	if err := wholefile.Write(m.file(s.Name), []byte(s.Unit), 0o644); err != nil {
		return fmt.Errorf("install the service: %w", err)
	}
	for _, step := range [][]string{{"daemon-reload"}, {"enable", m.unit(s.Name)}, {"restart", m.unit(s.Name)}} {
		if _, err := m.control(ctx, step...); err != nil {
			return fmt.Errorf("install the service: %w", err)
		}
	}
	return nil
}

// Uninstall implements [Manager].
func (m *Systemd) Uninstall(ctx context.Context, name string) (was bool, err error) {
	if _, err := os.Stat(m.file(name)); errors.Is(err, fs.ErrNotExist) {
		// A killed uninstall may have left systemd with a unit that has no file.
		_, err := m.control(ctx, "daemon-reload")
		return false, err
	}
	if _, err := m.control(ctx, "disable", "--now", m.unit(name)); err != nil {
		return true, fmt.Errorf("uninstall the service: %w", err)
	}
	if err := os.Remove(m.file(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return true, fmt.Errorf("uninstall the service: %w", err)
	}
	if _, err := m.control(ctx, "daemon-reload"); err != nil {
		return true, fmt.Errorf("uninstall the service: %w", err)
	}
	_, _ = m.control(ctx, "reset-failed", m.unit(name)) // it fails when nothing had failed
	return true, nil
}

// Start implements [Manager].
func (m *Systemd) Start(ctx context.Context, name string) error { return m.tell(ctx, "start", name) }

// Stop implements [Manager].
func (m *Systemd) Stop(ctx context.Context, name string) error { return m.tell(ctx, "stop", name) }

func (m *Systemd) tell(ctx context.Context, what, name string) error {
	if _, err := os.Stat(m.file(name)); errors.Is(err, fs.ErrNotExist) {
		return ErrNotInstalled
	}
	_, err := m.control(ctx, what, m.unit(name))
	return err
}

// State implements [Manager].
func (m *Systemd) State(ctx context.Context, name string) (State, error) {
	if _, err := os.Stat(m.file(name)); errors.Is(err, fs.ErrNotExist) {
		return State{}, nil
	}
	text, err := m.control(ctx, "show", "--property=ActiveState,SubState,UnitFileState,MainPID,Result", m.unit(name))
	if err != nil {
		return State{Installed: true}, err
	}
	said := map[string]string{}
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		said[key] = value
	}
	s := State{Installed: true, Enabled: said["UnitFileState"] == "enabled", Running: said["ActiveState"] == "active" && said["SubState"] == "running"}
	s.PID, _ = strconv.Atoi(said["MainPID"]) // 0 without one
	s.Detail = said["ActiveState"] + ", " + said["SubState"]
	if result := said["Result"]; result != "" && result != "success" {
		s.Detail += ", " + result
	}
	return s, nil
}

// Log implements [Manager].
func (m *Systemd) Log(name string) string {
	if m.User {
		return "journalctl --user -u " + name
	}
	return "journalctl -u " + name
}
