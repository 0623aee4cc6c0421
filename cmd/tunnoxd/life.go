package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"
)

// life holds the parts that a process has started. They end in reverse order, each
// waited for. So the order of the calls to run and atEnd is the order of dependence: a
// part is started after the parts that it needs.
type life struct {
	log    *slog.Logger
	failed chan error // the error of the first task that ended by itself
	ending atomic.Bool
	ends   []ending
}

type ending struct {
	name string
	end  func(context.Context) error
}

func newLife(log *slog.Logger) *life { return &life{log: log, failed: make(chan error, 1)} }

// atEnd registers a function that ends a part. Its context carries the deadline of the
// whole shutdown. After the deadline the function must not wait for work any more.
func (l *life) atEnd(name string, end func(context.Context) error) {
	l.ends = append(l.ends, ending{name, end})
}

// run starts a named goroutine that should work until the process ends. If it ends
// earlier, with or without an error, it ends the process: a server without a projector
// or a relay seems to work and does not.
func (l *life) run(name string, work func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		err := work(ctx)
		if ctx.Err() == nil && !l.ending.Load() {
			select {
			case l.failed <- taskError(name, err):
			default: // another task was first, and this error may be its consequence
			}
			err = nil // reported only once
		}
		done <- err
	}()
	l.atEnd(name, func(context.Context) error {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			return err
		}
		return nil
	})
}

func taskError(name string, err error) error {
	if err == nil {
		return fmt.Errorf("%s ended by itself", name)
	}
	return fmt.Errorf("%s: %w", name, err)
}

// wait blocks until ctx ends, because of a signal, or until a task fails. Then it ends
// everything within the drain time. It returns the error that ended the process.
func (l *life) wait(ctx context.Context, drain time.Duration) error {
	var cause error
	select {
	case <-ctx.Done():
		l.log.Info("ending", "drain", drain)
	case cause = <-l.failed:
		l.log.Error("ending", "error", cause)
	}
	return errors.Join(cause, l.end(drain))
}

// end ends all parts, the last one first. It continues after errors: an error of one
// part must not keep the others from flushing.
func (l *life) end(drain time.Duration) error {
	l.ending.Store(true) // parts that end because of each other are not failures now
	ctx, cancel := context.WithTimeout(context.Background(), drain)
	defer cancel()
	var errs []error
	for i := len(l.ends) - 1; i >= 0; i-- {
		part := l.ends[i]
		if err := part.end(ctx); err != nil {
			errs = append(errs, fmt.Errorf("end %s: %w", part.name, err))
		}
	}
	l.ends = nil
	return errors.Join(errs...)
}
