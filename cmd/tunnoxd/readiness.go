package main

import (
	"context"
	"errors"
	"time"
)

// checkedFor is how long the result of a check is used again. /ready needs no key and
// may be called often; the cost of a check is paid once in this time.
const checkedFor = time.Second

// check is one check of readiness, which several callers may ask for at the same
// moment.
type check struct {
	ask  func(context.Context) error
	turn chan struct{} // holds one token; its owner may check, and use the fields below
	at   time.Time
	err  error
}

func newCheck(ask func(context.Context) error) *check {
	c := &check{ask: ask, turn: make(chan struct{}, 1)}
	c.turn <- struct{}{}
	return c
}

// run gives the result, which is less than checkedFor old.
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
		return err // this caller has left, which says nothing about the check
	}
	c.at, c.err = time.Now(), err
	return err
}
