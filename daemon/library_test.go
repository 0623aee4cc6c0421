package daemon

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/kardianos/service"
)

// fakeService is a service as launchd or Windows has it.
type fakeService struct {
	said             []string
	installed        bool
	running, refuses bool
}

func (f *fakeService) note(what string) { f.said = append(f.said, what) }

func (f *fakeService) Install() error {
	f.note("install")
	if f.installed {
		return errors.New("it exists already")
	}
	f.installed = true
	return nil
}

func (f *fakeService) Uninstall() error {
	f.note("uninstall")
	if f.refuses {
		return errors.New("access is denied")
	}
	f.installed = false
	return nil
}
func (f *fakeService) Start() error { f.note("start"); f.running = true; return nil }
func (f *fakeService) Stop() error {
	f.note("stop")
	if !f.running {
		return errors.New("it does not run")
	}
	f.running = false
	return nil
}

func (f *fakeService) Status() (service.Status, error) {
	switch {
	case !f.installed:
		return service.StatusUnknown, service.ErrNotInstalled
	case f.running:
		return service.StatusRunning, nil
	}
	return service.StatusStopped, nil
}

// Where the manager refuses to install twice, the second install comes to the state of
// the first all the same.
func TestTheLibraryInstallsAndUninstallsTwice(t *testing.T) {
	fake := &fakeService{}
	m := &Library{Open: func(Service) (installed, error) { return fake, nil }}
	s := Service{Name: "x", Program: "/x"}
	for range 2 {
		if err := m.Install(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		if state, err := m.State(t.Context(), "x"); err != nil || !state.Running || !state.Installed {
			t.Fatalf("%+v, %v", state, err)
		}
	}
	fake.running = false // killed in the middle: installed, and not started
	if err := m.Install(t.Context(), s); err != nil || !fake.running {
		t.Fatalf("%v, running %v", err, fake.running)
	}
	if !slices.Equal(fake.said, []string{"install", "start", "stop", "uninstall", "install", "start", "stop", "uninstall", "install", "start"}) {
		t.Error(fake.said)
	}
	for _, want := range []bool{true, false} {
		if was, err := m.Uninstall(t.Context(), "x"); err != nil || was != want {
			t.Errorf("uninstall: %v, %v", was, err)
		}
	}
	if err := m.Start(t.Context(), "x"); !errors.Is(err, ErrNotInstalled) {
		t.Error(err)
	}
	fake.installed, fake.refuses = true, true
	if err := m.Install(t.Context(), s); err == nil || !strings.Contains(err.Error(), "access is denied") {
		t.Error(err)
	}
}
