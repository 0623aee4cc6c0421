package agent

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tunnox-net/tunnox/wire"
	"github.com/tunnox-net/tunnox/wire/wirepb"
)

// A tunnel is a mapping or a share that ends with a program in the foreground of this
// machine. The agent creates it for the program, checks that it still exists, and ends
// it.
//
// If a program is killed, and started again within [tunnelGrace], it finds its mapping
// unchanged, with the same port and address. The same holds for an agent that is
// killed: the control plane gives it the same time.

// TunnelKind says how a tunnel is made.
type TunnelKind string

// The kinds of tunnels.
const (
	TunnelPublic  TunnelKind = "public"  // visitors come in at the server, the service is at this machine
	TunnelForward TunnelKind = "forward" // a listener at this machine, the service at another client of the same user
	TunnelExpose  TunnelKind = "expose"  // a share of a service of this machine
	TunnelGet     TunnelKind = "get"     // a listener at this machine, for a user with the code of a share
)

// Tunnel is the request for a tunnel.
type Tunnel struct {
	Kind     TunnelKind `json:"kind"`
	Protocol string     `json:"protocol"`
	// Parts are the parts of the mapping, as the REST API names them: origin, service
	// and options. The agent chooses the parts that are missing.
	Parts  map[string]any `json:"parts"`
	Target string         `json:"target"` // forward: the other client, by id or name
	Code   string         `json:"code"`   // get
	// expose: how often, and for how many seconds, the code can be used; 0 = once, and
	// as long as the tunnel exists.
	Uses    uint32 `json:"uses"`
	Seconds uint32 `json:"seconds"`
	Keep    bool   `json:"keep"` // the tunnel stays when the program ends
	// Inspect has the agent show the requests of an http tunnel on a page of this machine.
	Inspect bool `json:"inspect,omitempty"`
	// Watch has the agent note the requests of an http tunnel, so that the program can show
	// them, see [TunnelTraffic].
	Watch bool `json:"watch,omitempty"`
	// Resume is the last news of another agent of this machine, when the same program's
	// tunnel was ready. That agent has ended.
	Resume *TunnelNews `json:"resume,omitempty"`
}

// TunnelNews is what the agent reports to the program.
type TunnelNews struct {
	Event   string        `json:"event"` // ready, warning, offline, online or ended
	ID      int64         `json:"id,omitempty"`
	Mapping *LocalMapping `json:"mapping,omitempty"`
	Listen  string        `json:"listen,omitempty"` // host:port at this machine
	ShareID int64         `json:"share_id,omitempty"`
	Code    string        `json:"code,omitempty"`    // of the share; or of the reason for the end
	Expires time.Time     `json:"expires,omitzero"`  // of the share
	Message string        `json:"message,omitempty"` // for users
	// Inspector is the URL of the page that shows the requests.
	Inspector string `json:"inspector,omitempty"`
}

const (
	// tunnelGrace is how long a program in the foreground may be gone.
	tunnelGrace = time.Minute
	// tunnelLook is how often the agent checks that a mapping still exists. It also
	// checks whenever a session begins, because a target gets no notice when it loses a
	// mapping.
	tunnelLook = 15 * time.Second
)

// tunnel is one tunnel that the agent holds.
type tunnel struct {
	a     *Agent
	id    int64
	wish  Tunnel
	tell  func(TunnelNews)
	began time.Time
	ended chan struct{} // closed when the tunnel was ended, or could not begin
	once  sync.Once
	holds []int64 // mappings; guarded by tunnels.mu

	mapping *wirepb.Mapping // nil: an expose
	share   *wirepb.Share   // nil: the tunnel is no expose
	shareID atomic.Int64    // of share; other tunnels read it
	adopted []int64         // mappings of a share that an earlier program held
	seen    time.Time       // when the mapping was last seen
	away    bool            // the agent was disconnected since then
	allowed string          // the service that the policy allows for this tunnel

	inspector string // the URL of the page that shows its requests, "" = none
	unwatch   func() // ends what inspect began
	tally     tally
}

// begin creates the mapping or the share, or takes over what a killed program has left.
func (t *tunnel) begin(ctx context.Context) error {
	if err := t.check(); err != nil {
		return err
	}
	var err error
	switch t.wish.Kind {
	case TunnelPublic, TunnelForward:
		err = t.beginMapping(ctx)
	case TunnelExpose:
		err = t.beginShare(ctx)
	case TunnelGet:
		err = t.redeem(ctx)
	}
	if err != nil {
		return err
	}
	t.seen = time.Now()
	if t.mapping == nil || t.mapping.GetSourceClientId() != t.a.identityID() {
		return nil
	}
	if err := t.a.listeners.opened(ctx, t.mapping.GetMappingId()); err != nil {
		t.letGo()
		return errors.Join(err, t.end(context.WithoutCancel(ctx)))
	}
	return nil
}

// finish notes that there is nothing more to end.
func (t *tunnel) finish() { t.once.Do(func() { close(t.ended) }) }

// letGo gives up what the tunnel holds, so that other tunnels may hold it.
func (t *tunnel) letGo() {
	ts := t.a.tunnels
	ts.mu.Lock()
	defer ts.mu.Unlock()
	for _, id := range t.holds {
		if ts.held[id]--; ts.held[id] <= 0 {
			delete(ts.held, id)
		}
	}
	t.holds = nil
}

// check finds the faults of the request that need no server.
func (t *tunnel) check() error {
	switch t.wish.Kind {
	case TunnelPublic, TunnelExpose:
		service, err := t.service()
		if err != nil {
			return err
		}
		t.allowed = service
		t.a.target.asked.add(service)
	case TunnelForward:
		if t.wish.Target == "" {
			return &refusedHere{"invalid", "The other client is missing."}
		}
		if _, port := t.listener(); port == 0 && t.wish.Protocol != socksProtocol {
			return &refusedHere{"invalid", "The port to listen on is missing."}
		}
	case TunnelGet:
		if t.wish.Code == "" {
			return &refusedHere{"invalid", "The code is missing."}
		}
	default:
		return &refusedHere{"invalid", fmt.Sprintf("This agent knows no tunnel of kind %q.", t.wish.Kind)}
	}
	if _, ok := listens(t.wish.Protocol); !ok && t.wish.Kind == TunnelForward { // what comes in elsewhere is for others to know
		return &refusedHere{string(wire.ProtocolUnavailable), fmt.Sprintf("This agent does not carry %s.", t.wish.Protocol)}
	}
	return nil
}

func (t *tunnel) service() (string, error) {
	if at, ok := parsePlace(t.text("target")); ok {
		if !at.valid() {
			return "", &refusedHere{"invalid", "The service " + at.String() + " needs an absolute path."}
		}
		return at.String(), nil
	}
	host, port := t.text("target_host"), t.number("target_port")
	if host == "" || port < 1 || port > 65535 {
		return "", &refusedHere{"invalid", "The service is missing: a host and a port from 1 to 65535."}
	}
	return net.JoinHostPort(host, strconv.Itoa(port)), nil
}

func (t *tunnel) listener() (host string, port int) {
	return cmp.Or(t.text("local_host"), "127.0.0.1"), t.number("local_port")
}

func (t *tunnel) text(part string) string { return textOf(t.wish.Parts[part]) }

func textOf(part any) string { s, _ := part.(string); return s }

func (t *tunnel) number(part string) int { n, _ := t.wish.Parts[part].(float64); return int(n) }

// beginMapping takes over an equal mapping, or creates one.
func (t *tunnel) beginMapping(ctx context.Context) error {
	source, target := int64(0), t.a.identityID()
	if t.wish.Kind == TunnelForward {
		source = target
		var err error
		if target, err = t.a.clientNamed(ctx, t.wish.Target); err != nil {
			return err
		}
	}
	if !t.wish.Keep {
		left, err := t.a.tunnels.leftBehind(ctx, t, func(m *wirepb.Mapping) bool {
			if before := t.wish.Resume; before != nil && before.Mapping != nil { // another equal mapping belongs to another program
				return before.Mapping.MappingID == m.GetMappingId()
			}
			return m.GetSourceClientId() == source && m.GetTargetClientId() == target && m.GetProtocol() == t.wish.Protocol &&
				m.GetShareId() == 0 && t.fits(m)
		})
		if err != nil {
			return err
		}
		if left != nil && !t.mayHaveAnotherPassword() {
			t.mapping = left
			return nil
		}
		if left != nil {
			if err := t.replace(ctx, left); err != nil {
				return err
			}
		}
	}
	if source != 0 {
		if err := t.choosePort(); err != nil {
			return err
		}
		host, port := t.listener()
		if err := canListen(t.wish.Protocol, host, port); err != nil {
			return err
		}
	}
	err := t.create(ctx, source, target, t.wish.Parts)
	if code, _ := refusalOf(err); code == "host_taken" || code == "port_taken" {
		if freed, lookErr := t.free(ctx); lookErr != nil || !freed {
			return errors.Join(err, lookErr)
		}
		err = t.create(ctx, source, target, t.wish.Parts)
	}
	return err
}

// free ends a mapping that an earlier program of this machine has left, when it has the
// name or the port that this tunnel asks for: one's own comes back at once, with whatever
// else is different.
func (t *tunnel) free(ctx context.Context) (freed bool, err error) {
	all, err := t.a.tunnels.list(ctx)
	if err != nil {
		return false, err
	}
	for _, m := range all {
		var has map[string]any
		if json.Unmarshal(m.GetParts(), &has) != nil || t.a.tunnels.inUse(m, t) || !heldBy(m, t.a.identityID()) {
			continue
		}
		host, path := has["public_host"], cmp.Or(textOf(has["public_path"]), "/")
		sameHost := host != nil && host == t.wish.Parts["public_host"] && path == cmp.Or(t.text("public_path"), "/")
		port := has["public_port"]
		if !sameHost && (port == nil || port == float64(0) || port != t.wish.Parts["public_port"] || m.GetProtocol() != t.wish.Protocol) {
			continue
		}
		if err := t.a.tunnels.remove(ctx, m.GetMappingId()); err != nil {
			return freed, err
		}
		freed = true
	}
	return freed, nil
}

func (t *tunnel) create(ctx context.Context, source, target int64, parts map[string]any) error {
	wish := map[string]any{}
	for name, value := range parts {
		wish[name] = value
	}
	if !t.wish.Keep {
		wish["held_by"] = "target"
		if source != 0 {
			wish["held_by"] = "source"
		}
	}
	object, err := json.Marshal(wish)
	if err != nil {
		return err
	}
	r, err := t.a.asked(ctx, &wirepb.Command{Command: &wirepb.Command_CreateMapping{CreateMapping: &wirepb.CreateMapping{
		SourceClientId: source, TargetClientId: target, Protocol: t.wish.Protocol, Parts: object}}})
	if err != nil {
		return err
	}
	if len(r.GetMappings()) != 1 {
		return &refusedHere{"internal", "The server created a mapping, but did not send its id."}
	}
	t.mapping = r.GetMappings()[0]
	t.a.tunnels.hold(t, t.mapping.GetMappingId())
	return nil
}

// fits reports whether a mapping has all the parts of the request.
func (t *tunnel) fits(m *wirepb.Mapping) bool {
	var has map[string]any
	if json.Unmarshal(m.GetParts(), &has) != nil || has["held_by"] == nil {
		return false
	}
	for name, want := range t.wish.Parts {
		if name == "public_port" && want == float64(0) {
			continue // every value fits
		}
		if name == "socks" { // the server shows the user name only
			has[name], want = userOf(has[name]), userOf(want)
		}
		if fmt.Sprint(has[name]) != fmt.Sprint(withoutPasswords(want)) {
			return false
		}
	}
	for _, name := range visitorRules {
		if has[name] != nil && t.wish.Parts[name] == nil {
			return false
		}
	}
	return true
}

// ready gives the news that the tunnel is ready.
func (t *tunnel) ready() TunnelNews {
	news := TunnelNews{Event: "ready", ID: t.id, Inspector: t.inspector}
	if t.share != nil {
		news.ShareID, news.Code = t.share.GetShareId(), t.share.GetCode()
		if t.share.GetExpires() != 0 {
			news.Expires = time.Unix(t.share.GetExpires(), 0).UTC()
		}
		return news
	}
	m := localMapping(t.mapping)
	news.Mapping = &m
	if m.SourceClientID != 0 {
		news.Listen = net.JoinHostPort(m.LocalHost, strconv.Itoa(int(m.LocalPort)))
	}
	return news
}
