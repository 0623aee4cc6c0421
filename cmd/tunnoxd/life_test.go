package main

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestPartsEndInReverseOrderAndAreWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLife(slog.New(slog.DiscardHandler))
		var order []string
		task := func(name string) {
			l.run(name, func(ctx context.Context) error {
				<-ctx.Done()
				time.Sleep(time.Second) // it takes a while to end, and is waited for
				order = append(order, name)
				return ctx.Err()
			})
		}
		l.atEnd("store", func(context.Context) error { order = append(order, "store"); return nil })
		task("relay")
		task("api")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := l.wait(ctx, time.Minute); err != nil {
			t.Errorf("an ordered end is no error, got %v", err)
		}
		if want := []string{"api", "relay", "store"}; !slices.Equal(order, want) {
			t.Errorf("ended in order %v, want %v", order, want)
		}
	})
}

func TestATaskThatEndsByItselfEndsTheProcess(t *testing.T) {
	for name, result := range map[string]error{"with an error": errors.New("broken"), "without": nil} {
		synctest.Test(t, func(t *testing.T) {
			l := newLife(slog.New(slog.DiscardHandler))
			closed := false
			l.atEnd("store", func(context.Context) error { closed = true; return nil })
			l.run("projector", func(context.Context) error { return result })
			err := l.wait(t.Context(), time.Minute)
			if err == nil || !strings.Contains(err.Error(), "projector") || (result != nil && !errors.Is(err, result)) {
				t.Errorf("%s: got error %v", name, err)
			}
			if !closed {
				t.Errorf("%s: what it used was not closed", name)
			}
		})
	}
}

func TestAnErrorAtTheEndKeepsNoOtherPartFromEnding(t *testing.T) {
	l := newLife(slog.New(slog.DiscardHandler))
	closed := false
	l.atEnd("store", func(context.Context) error { closed = true; return nil })
	l.atEnd("api", func(context.Context) error { return errors.New("stuck") })
	if err := l.end(time.Second); err == nil || err.Error() != "end api: stuck" {
		t.Errorf("got %v", err)
	}
	if !closed {
		t.Error("the store was not closed")
	}
}
