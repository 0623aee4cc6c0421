package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/tunnox-net/tunnox/wire"
	"github.com/tunnox-net/tunnox/wire/wirepb"
)

// follow watches the tunnel until the program is gone, the tunnel was ended, or the
// agent ends.
func (t *tunnel) follow(ctx context.Context) {
	t.trial(ctx)
	tick := time.NewTicker(tunnelLook)
	defer tick.Stop()
	online := true
	for {
		s, _, changed := t.a.sessions.pick(nil)
		if (s != nil) != online {
			online = s != nil
			if !online {
				t.away = true
				t.tell(TunnelNews{Event: "offline"})
				continue
			}
			t.tell(TunnelNews{Event: "online", Message: s.node})
			if !t.look(ctx) {
				return
			}
		}
		withdrawn := t.withdrawn()
		select {
		case <-changed:
		case <-withdrawn:
			if online && t.lost() && !t.look(ctx) {
				return
			}
		case <-tick.C:
			if online && !t.look(ctx) {
				return
			}
		case <-t.ended:
			t.tell(TunnelNews{Event: "ended"})
			return
		case <-t.a.ending:
			return
		case <-ctx.Done():
			return
		}
	}
}

// withdrawn gives a channel that is closed when a listener has changed, nil for a
// tunnel without a listener.
func (t *tunnel) withdrawn() <-chan struct{} {
	if t.mapping == nil || t.mapping.GetSourceClientId() != t.a.identityID() {
		return nil
	}
	_, noted := t.a.listeners.change(t.mapping.GetMappingId())
	return noted
}

// lost reports whether the configuration has lost the tunnel's listener.
func (t *tunnel) lost() bool {
	wanted, _ := t.a.listeners.change(t.mapping.GetMappingId())
	return !wanted
}

// trial warns the program when nothing listens at the service.
func (t *tunnel) trial(ctx context.Context) {
	if t.allowed == "" || t.wish.Protocol != "tcp" && t.wish.Protocol != "http" && t.wish.Protocol != "tls" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	conn, err := t.a.target.try(ctx, t.wish.Protocol, t.allowed)
	if err != nil {
		t.tell(TunnelNews{Event: "warning", Code: "service_not_reached",
			Message: fmt.Sprintf("no service answers at %s yet (%s): start it; the tunnel stays open", t.allowed, wire.CodeOf(err).Sentence())})
		return
	}
	_ = conn.Close()
}

// look finds out whether the tunnel still exists. If the control plane has ended it,
// because the agent was away too long, look creates it again. It returns false when the
// tunnel has ended.
func (t *tunnel) look(ctx context.Context) bool {
	if t.wish.Keep {
		return true // only its owner ends it
	}
	there, err := t.there(ctx)
	if err != nil {
		return true // the server did not answer
	}
	if there {
		t.seen, t.away = time.Now(), false
		return true
	}
	if !t.away || t.wish.Kind == TunnelGet { // a user has ended it
		t.tell(TunnelNews{Event: "ended", Code: "ended_elsewhere", Message: t.gone()})
		return false
	}
	if err := t.anew(ctx); err != nil {
		code, message := refusalOf(err)
		t.tell(TunnelNews{Event: "ended", Code: code, Message: message})
		return false
	}
	t.seen, t.away = time.Now(), false
	t.tell(t.ready())
	return true
}

func (t *tunnel) gone() string {
	if t.wish.Kind == TunnelGet {
		return "The tunnel was ended at the other side: ask for another code."
	}
	return "The tunnel was ended at the server: somebody has deleted its mapping."
}

func (t *tunnel) there(ctx context.Context) (bool, error) {
	if t.mapping == nil { // this agent cannot see whether a share can still be used
		return !t.away || time.Since(t.seen) < tunnelGrace-tunnelLook, nil
	}
	id := t.mapping.GetMappingId()
	r, err := t.a.asked(ctx, &wirepb.Command{Command: &wirepb.Command_ListMappings{ListMappings: &wirepb.ListMappings{After: id - 1, Limit: 1}}})
	if err != nil {
		return false, err
	}
	return len(r.GetMappings()) == 1 && r.GetMappings()[0].GetMappingId() == id, nil
}

// anew creates a tunnel again that the control plane has ended, with the same port.
func (t *tunnel) anew(ctx context.Context) error {
	if t.mapping == nil {
		return t.beginShare(ctx)
	}
	before := t.mapping
	t.letGo()
	parts := map[string]any{}
	if err := json.Unmarshal(before.GetParts(), &parts); err != nil {
		return err
	}
	delete(parts, "held_by")
	for _, name := range append([]string{"socks"}, visitorRules...) {
		if t.wish.Parts[name] != nil {
			parts[name] = t.wish.Parts[name] // the server shows no password
		}
	}
	err := t.create(ctx, before.GetSourceClientId(), before.GetTargetClientId(), parts)
	if code, _ := refusalOf(err); code == "port_taken" && t.number("public_port") == 0 || code == "host_taken" && t.text("public_host") == "" {
		delete(parts, "public_port") // the request named none
		delete(parts, "public_host")
		err = t.create(ctx, before.GetSourceClientId(), before.GetTargetClientId(), parts)
	}
	if err == nil { // it is another mapping that is to be watched
		t.unwatch()
		t.inspect()
	}
	return err
}

// end ends the tunnel at the server, with all mappings that were made of it. The server
// then need not wait for the grace to pass.
func (t *tunnel) end(ctx context.Context) error {
	if t.wish.Keep {
		return nil
	}
	if t.share != nil {
		_, err := t.a.asked(ctx, &wirepb.Command{Command: &wirepb.Command_RevokeShare{RevokeShare: &wirepb.RevokeShare{ShareId: t.share.GetShareId()}}})
		if code, _ := refusalOf(err); err != nil && code != "share_not_found" {
			return err
		}
	}
	mappings, err := t.a.tunnels.list(ctx)
	if err != nil {
		return err
	}
	for _, m := range mappings {
		if !t.made(m) || t.a.tunnels.inUse(m, t) {
			continue
		}
		if err := t.a.tunnels.remove(ctx, m.GetMappingId()); err != nil {
			return err
		}
	}
	return nil
}

// made reports whether a mapping belongs to this tunnel, or was made of its share.
func (t *tunnel) made(m *wirepb.Mapping) bool {
	if t.share != nil {
		return m.GetShareId() == t.share.GetShareId() || slices.Contains(t.adopted, m.GetMappingId())
	}
	return t.mapping != nil && m.GetMappingId() == t.mapping.GetMappingId()
}
