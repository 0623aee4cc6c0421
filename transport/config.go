package transport

import (
	"cmp"
	"time"
)

// SessionConfig tunes a session. The zero value of each field is its default.
type SessionConfig struct {
	// PingEvery is how often a quiet session is probed. Default 9 s. The side that
	// dialled waits a quarter longer, which leaves a probe of either some seconds.
	PingEvery time.Duration
	// DeadAfter is the silence after which the peer is given up. Default 15 s.
	DeadAfter time.Duration
	// MaxStreams bounds the streams that the peer may have open at once; one more
	// is reset. Default 65,536.
	MaxStreams int
	// Queued, if set, is told of a link that holds bulk back: how long a new byte would
	// now wait in this system before it is sent. It must not block.
	Queued func(wait time.Duration)

	// beneath gathers what the session's writer writes at once; nil without TLS.
	beneath *carrier
	// What the sessions of a listener share; nil for a session with its own.
	beats *heartbeats
	// A listener's: called by Admit, and once when the session has ended.
	onAdmit, onEnd func()
}

func (c SessionConfig) withDefaults() SessionConfig {
	c.PingEvery = cmp.Or(c.PingEvery, 9*time.Second)
	c.DeadAfter = cmp.Or(c.DeadAfter, 15*time.Second)
	c.MaxStreams = cmp.Or(c.MaxStreams, 65536)
	return c
}
