package transport

import (
	"fmt"
	"io"
	"sync"

	"golang.org/x/sys/unix"
)

// run moves the bytes of one lane to the other, to their end, in the kernel.
func (m *laneMove) run() error {
	for {
		n, p, err := m.fill()
		switch {
		case err != nil:
			return err
		case p == nil:
			return m.copy() // there are no pipes
		case n == 0:
			p.free()
			m.from.ended.Store(true)
			return nil
		}
		if err := m.drain(p, n); err != nil {
			p.close() // there are bytes in it
			return err
		}
		p.free()
		if err := m.handed(n); err != nil {
			return err
		}
	}
}

// fill waits for bytes and moves them into a pipe. While it waits it has no pipe. n is 0 at
// the end. Without an error and a pipe, no pipe could be made.
func (m *laneMove) fill() (n int, p *pipe, err error) {
	most := pipeSize
	if m.brake.braking() {
		most = m.brake.most()
	}
	waited := m.from.raw.Read(func(fd uintptr) bool {
		if p = newPipe(); p == nil {
			return true
		}
		n, err = spliceOnce(int(fd), p.w, most)
		if err != unix.EAGAIN { //nolint:errorlint // as the system gives it
			return true
		}
		p.free()
		p, err = nil, nil
		return false
	})
	if waited != nil {
		err = waited
	}
	if err != nil {
		if p != nil {
			p.free() // nothing came into it
		}
		return 0, nil, fmt.Errorf("read: %w", err)
	}
	return n, p, nil
}

// drain moves n bytes out of a pipe, and waits for room.
func (m *laneMove) drain(p *pipe, n int) error {
	for n > 0 {
		var moved int
		var err error
		waited := m.to.raw.Write(func(fd uintptr) bool {
			moved, err = spliceOnce(p.r, int(fd), n)
			return err != unix.EAGAIN //nolint:errorlint // as the system gives it
		})
		if waited != nil {
			err = waited
		}
		if err == nil && moved == 0 {
			err = io.ErrShortWrite // the pipe has fewer bytes than went into it
		}
		if err != nil {
			return fmt.Errorf("write: %w", err)
		}
		n -= moved
	}
	return nil
}

func spliceOnce(from, to, most int) (int, error) {
	for {
		n, err := unix.Splice(from, nil, to, nil, most, unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
		if err != unix.EINTR { //nolint:errorlint // as the system gives it
			return int(max(0, n)), err
		}
	}
}

// pipe is a pipe of the kernel. Pipes without bytes in them are kept for the next splice.
type pipe struct{ r, w int }

const (
	pipeSize  = 1 << 20 // what is asked for; the system may give less
	keptPipes = 32
)

var pipes struct {
	mu   sync.Mutex
	free []*pipe // guarded by mu
}

// newPipe gives a pipe, nil if the system has none.
func newPipe() *pipe {
	pipes.mu.Lock()
	if last := len(pipes.free) - 1; last >= 0 {
		p := pipes.free[last]
		pipes.free = pipes.free[:last]
		pipes.mu.Unlock()
		return p
	}
	pipes.mu.Unlock()
	var ends [2]int
	if unix.Pipe2(ends[:], unix.O_CLOEXEC|unix.O_NONBLOCK) != nil {
		return nil
	}
	_, _ = unix.FcntlInt(uintptr(ends[1]), unix.F_SETPIPE_SZ, pipeSize)
	return &pipe{ends[0], ends[1]}
}

func (p *pipe) free() {
	pipes.mu.Lock()
	if len(pipes.free) < keptPipes {
		pipes.free = append(pipes.free, p)
		p = nil
	}
	pipes.mu.Unlock()
	if p != nil {
		p.close()
	}
}

func (p *pipe) close() { _, _ = unix.Close(p.r), unix.Close(p.w) }
