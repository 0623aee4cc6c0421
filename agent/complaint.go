package agent

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/tunnox-net/tunnox/wire"
)

const (
	// complaintEvery is how often one cause is logged. A visitor sees only a reset, so
	// the owner of an agent learns from the log what to do. A line for each connection
	// would hide it.
	complaintEvery = time.Minute
	// maxComplaints bounds the memory, because the codes come from others.
	maxComplaints = 1000
)

// complaints remembers which causes were logged lately. The zero value is ready.
type complaints struct {
	mu   sync.Mutex
	last map[complaint]time.Time
}

type complaint struct {
	what    string
	mapping int64
	code    wire.Code
}

// due tells whether to log c now, and records that it was logged.
func (cs *complaints) due(c complaint, now time.Time) bool {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if last, ok := cs.last[c]; ok && now.Sub(last) < complaintEvery {
		return false
	}
	if cs.last == nil || len(cs.last) >= maxComplaints {
		cs.last = map[complaint]time.Time{}
	}
	cs.last[c] = now
	return true
}

// complain logs why a connection failed: at warn if the cause has a code and was not
// logged lately, otherwise at debug. A cause without a code is the end of the session,
// which is logged elsewhere.
func (s *session) complain(what string, mapping int64, reason error, more ...any) {
	s.a.complainTo(s.log, what, mapping, reason, more...)
}

// complain is the same for causes without a session.
func (a *Agent) complain(what string, mapping int64, reason error, more ...any) {
	a.complainTo(a.log, what, mapping, reason, more...)
}

func (a *Agent) complainTo(log *slog.Logger, what string, mapping int64, reason error, more ...any) {
	level := slog.LevelDebug
	var refusal *wire.Refusal
	var code wire.Code
	if errors.As(reason, &refusal) || errors.As(reason, &code) {
		if a.said.due(complaint{what, mapping, wire.CodeOf(reason)}, time.Now()) {
			level = slog.LevelWarn
		}
	}
	log.Log(context.Background(), level, what, append([]any{"mapping", mapping, "reason", reason}, more...)...)
}
