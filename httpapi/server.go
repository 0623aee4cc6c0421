package httpapi

import (
	"log/slog"
	"net/http"
	"time"
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
		ReadTimeout:       15 * time.Second,
		WriteTimeout:      30 * time.Second,
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
