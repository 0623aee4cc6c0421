//go:build !linux

package daemon

import (
	"os"
	"runtime"
	"sync"

	"github.com/kardianos/service"
)

// System is the manager of this machine: that of the machine for an administrator, else
// that of the user.
func System() (Manager, error) {
	return &Library{User: runtime.GOOS == "darwin" && os.Geteuid() != 0}, nil
}

// Under runs do, under the manager of services if that has started the program: Windows
// wants answers. stop is closed when the manager ends the service; nil without one.
func Under(name string, do func(stop <-chan struct{}) error) error {
	if runtime.GOOS != "windows" || service.Interactive() {
		return do(nil)
	}
	p := &program{do: do, stop: make(chan struct{}), over: make(chan struct{})}
	s, err := service.New(p, &service.Config{Name: name})
	if err != nil {
		return err
	}
	if err := s.Run(); err != nil {
		return err
	}
	return p.err
}

// program is the service that this process runs.
type program struct {
	do         func(stop <-chan struct{}) error
	stop, over chan struct{}
	once       sync.Once
	err        error // set before over is closed
}

// Start implements [service.Interface].
func (p *program) Start(s service.Service) error {
	go func() {
		p.err = p.do(p.stop)
		close(p.over)
		_ = s.Stop() // where it ended by itself
	}()
	return nil
}

// Stop implements [service.Interface].
func (p *program) Stop(service.Service) error {
	p.once.Do(func() { close(p.stop) })
	<-p.over
	return nil
}
