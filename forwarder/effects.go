package forwarder

import (
	"time"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/wire"
)

// effects are the actions that follow from a change of the routes. They are collected
// under the lock of the routes and carried out after it, because each of them may wait
// for a peer.
type effects struct {
	resets     map[*forward]wire.Code      // live streams to end
	ends       map[*session]*wire.Refusal  // sessions to end
	configures map[*session]time.Time      // agents to configure, and since when their configuration is wrong
	refreshes  map[subject]domain.Position // what to look up again, at least at this position
	listeners  bool                        // the listeners of public ports must be compared
}

// resetAll ends the live streams of a mapping.
func (fx *effects) resetAll(m *mappingRoute, code wire.Code) {
	for f := range m.live {
		if fx.resets == nil {
			fx.resets = map[*forward]wire.Code{}
		}
		fx.resets[f] = code
		m.remove(f)
	}
}

// end ends a session. The first reason counts.
func (fx *effects) end(s *session, refusal *wire.Refusal) {
	if s == nil {
		return
	}
	if fx.ends == nil {
		fx.ends = map[*session]*wire.Refusal{}
	}
	if fx.ends[s] == nil {
		fx.ends[s] = refusal
	}
}

// configure sends the session's agent its configuration again. at is the time at which
// the cause was decided, zero when it is not measured.
func (fx *effects) configure(s *session, at time.Time) {
	if s == nil {
		return
	}
	if fx.configures == nil {
		fx.configures = map[*session]time.Time{}
	}
	if since, ok := fx.configures[s]; !ok || since.IsZero() || (!at.IsZero() && at.Before(since)) {
		fx.configures[s] = at
	}
}

// refresh looks a subject up again.
func (fx *effects) refresh(s subject, min domain.Position) {
	if fx.refreshes == nil {
		fx.refreshes = map[subject]domain.Position{}
	}
	fx.refreshes[s] = max(min, fx.refreshes[s])
}

// listen makes the listeners of an ingress be compared, if it has listeners.
func (fx *effects) listen(i domain.Ingress) { fx.listeners = fx.listeners || i.LastPort != 0 }
