package httpapi

import (
	"context"
	"log/slog"
	"net/http"
	"time"
)

// Bounds of a request: to read it, and to answer it.
const (
	readTime  = 15 * time.Second
	writeTime = 30 * time.Second
)

// maxBodyBytes bounds a request's body; one byte more is 413.
const maxBodyBytes = 1 << 20

// NewServer gives an [http.Server] for the handler with the bounds the API is
// meant to run under. The caller opens the listener and calls Serve and Shutdown.
//
// A peer that sends nothing, or a byte a second, holds a goroutine for at most
// ReadTimeout. WriteTimeout covers the longest a handler waits (a read for its
// Min-Position, a write for the log) with room to spare; exports and live
// streams have bounds of their own (see outflow).
func NewServer(handler http.Handler, logger *slog.Logger) *http.Server {
	server := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       readTime,
		WriteTimeout:      writeTime,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    32 << 10,
		ErrorLog:          slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
	}
	// Answers that stay open would hold up a shutdown for all of its time.
	if a, ok := handler.(*api); ok {
		server.RegisterOnShutdown(a.streams.end)
	}
	return server
}

// Guest gives the handler the bounds of [NewServer] at a server of somebody else, whose
// other hosts have none. Answers that stay open end when leaving is closed.
func Guest(handler http.Handler, leaving <-chan struct{}) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		bounds, now := http.NewResponseController(w), time.Now()
		// What cannot have a deadline is a test's; a connection that is gone is seen later.
		_ = bounds.SetReadDeadline(now.Add(readTime))
		_ = bounds.SetWriteDeadline(now.Add(writeTime))
		handler.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), leavingKey{}, leaving)))
	})
}

type leavingKey struct{}

// leaving gives what is closed when the server of a guest takes no more requests; nil,
// which is never closed, for others.
func leaving(ctx context.Context) <-chan struct{} {
	c, _ := ctx.Value(leavingKey{}).(<-chan struct{})
	return c
}
