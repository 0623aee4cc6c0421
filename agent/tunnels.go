package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/tunnox-net/tunnox/wait"
	"github.com/tunnox-net/tunnox/wire"
	"github.com/tunnox-net/tunnox/wire/wirepb"
)

// tunnels are the tunnels that programs in the foreground of this machine hold.
type tunnels struct {
	a *Agent

	mu   sync.Mutex
	last int64             // number of the newest tunnel; guarded by mu, like the fields below
	open map[int64]*tunnel // by number
	held map[int64]int     // mappings, with the number of tunnels that hold each
}

func newTunnels(a *Agent) *tunnels {
	return &tunnels{a: a, open: map[int64]*tunnel{}, held: map[int64]int{}}
}

// refusedHere is a refusal by the agent itself.
type refusedHere struct{ code, message string }

func (e *refusedHere) Error() string { return e.message }

// refusedThere is a refusal by the control plane.
type refusedThere struct{ *wirepb.Result }

func (e *refusedThere) Error() string { return e.GetMessage() }

// refusalOf gives the code and the sentence of an error.
func refusalOf(err error) (code, message string) {
	if err == nil {
		return "", ""
	}
	if here, ok := errors.AsType[*refusedHere](err); ok {
		return here.code, here.message
	}
	if there, ok := errors.AsType[*refusedThere](err); ok {
		return there.GetCode(), there.GetMessage()
	}
	if errors.Is(err, ErrNoResult) {
		return "no_answer", "The server does not answer. The command may be done or not."
	}
	return string(wire.Internal), err.Error()
}

// asked is Do with a time limit, and with the refusal as an error.
func (a *Agent) asked(ctx context.Context, c *wirepb.Command) (*wirepb.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, localTimeout)
	defer cancel()
	r, err := a.Do(ctx, c)
	if err != nil {
		return nil, err
	}
	if r.GetCode() != "" {
		return nil, &refusedThere{r}
	}
	return r, nil
}

// clientNamed gives the client of the same user with an id or a name.
func (a *Agent) clientNamed(ctx context.Context, name string) (int64, error) {
	if id, err := strconv.ParseInt(name, 10, 64); err == nil && id > 0 {
		return id, nil
	}
	r, err := a.asked(ctx, &wirepb.Command{Command: &wirepb.Command_ListClients{ListClients: &wirepb.ListClients{Name: name}}})
	if err != nil {
		return 0, err
	}
	switch found := r.GetClients(); len(found) {
	case 0:
		return 0, &refusedHere{"client_not_found", fmt.Sprintf("No client of yours is called %q: tunnox agent clients lists them.", name)}
	case 1:
		return found[0].GetClientId(), nil
	default:
		ids := ""
		for i, c := range found {
			if i > 0 {
				ids += ", "
			}
			ids += strconv.FormatInt(c.GetClientId(), 10)
		}
		return 0, &refusedHere{"ambiguous", fmt.Sprintf("Several clients of yours are called %q: say which by its id, %s.", name, ids)}
	}
}

// add gives a tunnel its number.
func (ts *tunnels) add(wish Tunnel, tell func(TunnelNews)) *tunnel {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	ts.last++
	t := &tunnel{a: ts.a, id: ts.last, wish: wish, tell: tell, began: time.Now().UTC(), ended: make(chan struct{})}
	if tell != nil {
		t.tally.warn = t.warnOf
	}
	ts.open[t.id] = t
	return t
}

// status tells of the tunnels that are there, the oldest first.
func (ts *tunnels) status() []TunnelStatus {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	all := []TunnelStatus{}
	for _, id := range slices.Sorted(maps.Keys(ts.open)) {
		t := ts.open[id]
		service, err := t.service()
		if err != nil {
			service = "" // it is behind another client
		}
		if t.wish.Kind == TunnelForward {
			service = ""
		}
		all = append(all, TunnelStatus{ID: id, Kind: t.wish.Kind, Service: service, Mappings: slices.Sorted(slices.Values(t.holds)), ShareID: t.shareID.Load(), Since: t.began})
	}
	return all
}

// drop is called for a tunnel whose program has gone. The agent holds the mapping for
// some more time: the program may have been killed and may be started again. drop runs
// in the request of that program, and nobody waits for this request any more.
func (ts *tunnels) drop(t *tunnel) {
	ts.mu.Lock()
	delete(ts.open, t.id)
	ts.mu.Unlock()
	if t.allowed != "" {
		ts.a.target.asked.remove(t.allowed)
	}
	t.letGo()
	select {
	case <-t.ended:
		return
	case <-ts.a.ending: // the next agent of this identity finds the mapping
		return
	default:
	}
	if t.wish.Keep || !ts.wait(tunnelGrace) {
		return
	}
	ctx, cancel := context.WithTimeout(ts.a.ctx, localTimeout)
	defer cancel()
	// If the tunnel was broken off, the agent may not know what was created for it.
	if err := errors.Join(t.end(ctx), ts.clean(ctx)); err != nil && ts.a.ctx.Err() == nil {
		ts.a.log.Warn("cannot end a tunnel of a program that is gone", "reason", err)
	}
}

// wait waits, and returns false when the agent ends first.
func (ts *tunnels) wait(d time.Duration) bool { return wait.For(ts.a.ctx, d) }

// end ends the tunnel with that number.
func (ts *tunnels) end(ctx context.Context, id int64) error {
	ts.mu.Lock()
	t := ts.open[id]
	ts.mu.Unlock()
	if t == nil {
		return &refusedHere{"tunnel_not_found", "There is no such tunnel."}
	}
	t.letGo()
	if err := t.end(ctx); err != nil {
		return err
	}
	t.finish()
	return nil
}

func (ts *tunnels) hold(t *tunnel, mapping int64) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	ts.held[mapping]++
	t.holds = append(t.holds, mapping)
}

// inUse reports whether a program, other than the one of a given tunnel, holds a
// mapping or the share of the mapping.
func (ts *tunnels) inUse(m *wirepb.Mapping, but *tunnel) bool {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	return ts.held[m.GetMappingId()] > 0 || ts.shared(m, but)
}

// shared is the same for the share of the mapping. mu is held.
func (ts *tunnels) shared(m *wirepb.Mapping, but *tunnel) bool {
	if m.GetShareId() == 0 {
		return false
	}
	for _, t := range ts.open {
		if t != but && t.shareID.Load() == m.GetShareId() {
			return true
		}
	}
	return false
}

// listenAt tells whether a program of this machine asks to listen on an address: who
// starts it there consents by that.
func (ts *tunnels) listenAt(at netip.AddrPort) bool {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	for _, t := range ts.open {
		if t.wish.Kind != TunnelForward && t.wish.Kind != TunnelGet {
			continue
		}
		host, port := t.listener()
		if addr, err := netip.ParseAddr(host); err == nil && addr.Unmap() == at.Addr().Unmap() && (port == 0 || port == int(at.Port())) {
			return true
		}
	}
	return false
}

// list gives all mappings that the agent's client is an end of.
func (ts *tunnels) list(ctx context.Context) (all []*wirepb.Mapping, err error) {
	for after := int64(0); ; {
		r, err := ts.a.asked(ctx, &wirepb.Command{Command: &wirepb.Command_ListMappings{ListMappings: &wirepb.ListMappings{After: after, Limit: 1000}}})
		if err != nil {
			return nil, err
		}
		all = append(all, r.GetMappings()...)
		if after = r.GetNext(); after == 0 {
			return all, nil
		}
	}
}

// leftBehind gives a mapping that no tunnel holds and that suits, and holds it; nil
// when there is none.
func (ts *tunnels) leftBehind(ctx context.Context, t *tunnel, suits func(*wirepb.Mapping) bool) (*wirepb.Mapping, error) {
	all, err := ts.list(ctx)
	if err != nil {
		return nil, err
	}
	ts.mu.Lock()
	defer ts.mu.Unlock()
	for _, m := range all {
		if ts.held[m.GetMappingId()] == 0 && !ts.shared(m, t) && holder(m) != "" && suits(m) {
			ts.held[m.GetMappingId()]++
			t.holds = append(t.holds, m.GetMappingId())
			return m, nil
		}
	}
	return nil, nil
}

// remove deletes a mapping; a missing one is no error.
func (ts *tunnels) remove(ctx context.Context, id int64) error {
	_, err := ts.a.asked(ctx, &wirepb.Command{Command: &wirepb.Command_DeleteMapping{DeleteMapping: &wirepb.DeleteMapping{MappingId: id}}})
	if code, _ := refusalOf(err); code == "mapping_not_found" {
		return nil
	}
	return err
}

// sweep ends the mappings that programs of this machine held when the agent was last
// killed, unless a program has taken them over since.
func (ts *tunnels) sweep(ctx context.Context) {
	if _, ok := ts.a.registeredFor(ctx); !ok || !ts.wait(tunnelGrace) {
		return
	}
	if err := ts.clean(ctx); err != nil && ctx.Err() == nil {
		ts.a.log.Warn("what programs in the foreground left behind cannot be ended; the server does it when this agent has ended", "reason", err)
	}
}

// clean ends the mappings that end with this agent and that no program holds.
func (ts *tunnels) clean(ctx context.Context) error {
	all, err := ts.list(ctx)
	if err != nil {
		return err
	}
	me := ts.a.identityID()
	for _, m := range all {
		if ts.inUse(m, nil) || !heldBy(m, me) {
			continue
		}
		if err := ts.remove(ctx, m.GetMappingId()); err != nil {
			return err
		}
		ts.a.log.Info("ended a tunnel of a program that is gone", "mapping", m.GetMappingId())
	}
	return nil
}

// holder gives the ends whose agents hold a mapping: "", source, target or both.
func holder(m *wirepb.Mapping) string {
	var has struct {
		HeldBy string `json:"held_by"`
	}
	if json.Unmarshal(m.GetParts(), &has) != nil {
		return "" // the server is older than this field
	}
	return has.HeldBy
}

// heldBy reports whether a mapping ends with the agent of a client.
func heldBy(m *wirepb.Mapping, client int64) bool {
	by := holder(m)
	return m.GetSourceClientId() == client && (by == "source" || by == "both") ||
		m.GetTargetClientId() == client && (by == "target" || by == "both")
}
