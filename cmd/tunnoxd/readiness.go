package main

import (
	"context"
	"errors"
	"time"
)

// checkedFor is how long the answer of a check is given again. However many ask
// /ready, of whom nobody needs a key, what a check costs is paid once in it.
const checkedFor = time.Second

// check is one thing that readiness asks, which others may be asking at the same
// moment.
type check struct {
	ask  func(context.Context) error
	turn chan struct{} // holds one token; who has it may ask, and use what follows
	at   time.Time
	err  error
}

func newCheck(ask func(context.Context) error) *check {
	c := &check{ask: ask, turn: make(chan struct{}, 1)}
	c.turn <- struct{}{}
	return c
}

// run gives the answer, from less than checkedFor ago.
func (c *check) run(ctx context.Context) error {
	select {
	case <-c.turn:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { c.turn <- struct{}{} }()
	if !c.at.IsZero() && time.Since(c.at) < checkedFor {
		return c.err
	}
	err := c.ask(ctx)
	if errors.Is(ctx.Err(), context.Canceled) {
		return err // who asked has left, which says nothing of what was asked
	}
	c.at, c.err = time.Now(), err
	return err
}
