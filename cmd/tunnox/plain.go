package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
)

// plainHandler writes what is logged as sentences for people, without times and levels:
// they sit before it.
type plainHandler struct {
	out   io.Writer
	level slog.Level

	mu sync.Mutex
}

// Enabled implements [slog.Handler].
func (h *plainHandler) Enabled(_ context.Context, level slog.Level) bool { return level >= h.level }

// Handle implements [slog.Handler].
func (h *plainHandler) Handle(_ context.Context, r slog.Record) error {
	var about []string
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "error" || a.Key == "reason" || a.Key == "server" {
			about = append(about, fmt.Sprint(a.Value))
		}
		return true
	})
	text := r.Message
	if len(about) > 0 {
		text += " (" + strings.Join(about, ": ") + ")"
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	_, err := fmt.Fprintf(h.out, "tunnox: %s\n", oneLine(text))
	return err
}

// WithAttrs implements [slog.Handler]. What is common to all lines is not for people.
func (h *plainHandler) WithAttrs([]slog.Attr) slog.Handler { return h }

// WithGroup implements [slog.Handler].
func (h *plainHandler) WithGroup(string) slog.Handler { return h }
