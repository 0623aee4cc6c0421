package agent

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
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

func (t *tunnel) text(part string) string { s, _ := t.wish.Parts[part].(string); return s }

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
	return t.create(ctx, source, target, t.wish.Parts)
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

// beginShare creates a share, and holds the mappings that were made of an earlier share
// of the same service.
func (t *tunnel) beginShare(ctx context.Context) error {
	if before := t.wish.Resume; before != nil && before.ShareID != 0 {
		t.share = &wirepb.Share{ShareId: before.ShareID, Code: before.Code, Expires: before.Expires.Unix()}
		t.wish.Resume = nil // after this, a new share is created
		t.shareID.Store(t.share.GetShareId())
		return nil
	}
	wish := map[string]any{}
	for name, value := range t.wish.Parts {
		wish[name] = value
	}
	if !t.wish.Keep {
		wish["held_by"] = "target"
	}
	object, err := json.Marshal(wish)
	if err != nil {
		return err
	}
	r, err := t.a.asked(ctx, &wirepb.Command{Command: &wirepb.Command_CreateShare{CreateShare: &wirepb.CreateShare{
		Protocol: t.wish.Protocol, Parts: object, Random: drawShareCode(), MaxUses: t.wish.Uses, ExpiresSeconds: t.wish.Seconds}}})
	if err != nil {
		return err
	}
	t.share = r.GetShare()
	t.shareID.Store(t.share.GetShareId())
	for {
		left, err := t.a.tunnels.leftBehind(ctx, t, t.mine)
		if err != nil || left == nil {
			return err
		}
		t.adopted = append(t.adopted, left.GetMappingId())
	}
}

// mine reports whether a mapping was made of a share of this service, now or before the
// program was restarted.
func (t *tunnel) mine(m *wirepb.Mapping) bool {
	return t.share != nil && m.GetShareId() != 0 && m.GetTargetClientId() == t.a.identityID() && t.fits(m)
}

// drawShareCode draws the random part of a share code: 100 bits in base 32.
func drawShareCode() string {
	var b [13]byte
	rand.Read(b[:]) // never fails
	return base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b[:])[:20]
}

// redeem makes a mapping from a share code. It first finds out whether the listener can
// be opened, because the code may be valid for one use only.
func (t *tunnel) redeem(ctx context.Context) error {
	me := t.a.identityID()
	share := shareOf(t.wish.Code)
	host, port := t.listener()
	left, err := t.a.tunnels.leftBehind(ctx, t, func(m *wirepb.Mapping) bool {
		return share != 0 && m.GetShareId() == share && m.GetSourceClientId() == me && holder(m) != "" &&
			(port == 0 || m.GetLocalPort() == uint32(port) && m.GetLocalHost() == host)
	})
	if err != nil {
		return err
	}
	if left != nil {
		t.mapping = left
		return nil
	}
	r, err := t.a.asked(ctx, &wirepb.Command{Command: &wirepb.Command_RedeemShare{RedeemShare: &wirepb.RedeemShare{Code: t.wish.Code, Look: true}}})
	if err != nil {
		return err
	}
	if len(r.GetMappings()) != 1 {
		return &refusedHere{"internal", "The server did not send the service of the code."}
	}
	leads := r.GetMappings()[0]
	if _, ok := listens(leads.GetProtocol()); !ok {
		return &refusedHere{string(wire.ProtocolUnavailable), fmt.Sprintf("This agent does not carry %s.", leads.GetProtocol())}
	}
	if port == 0 {
		port = int(leads.GetTargetPort())
		if canListen(leads.GetProtocol(), host, port) != nil {
			if port, err = anyFree(host); err != nil {
				return err
			}
		}
	} else if err := canListen(leads.GetProtocol(), host, port); err != nil {
		return err
	}
	r, err = t.a.asked(ctx, &wirepb.Command{Command: &wirepb.Command_RedeemShare{RedeemShare: &wirepb.RedeemShare{
		Code: t.wish.Code, Name: t.text("name"), LocalHost: host, LocalPort: uint32(port), Held: !t.wish.Keep}}})
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

// shareOf gives the share of a code, 0 for none. A code begins with the share's number.
func shareOf(code string) int64 {
	var id int64
	if _, err := fmt.Sscanf(code, "%d-", &id); err != nil {
		return 0
	}
	return id
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

// canListen reports whether a listener could be opened at this machine.
func canListen(protocol, host string, port int) error {
	addr, err := netip.ParseAddr(host)
	if err != nil || port < 1 || port > 65535 {
		return &refusedHere{"invalid", fmt.Sprintf("%s is not an address to listen on: give an IP address and a port from 1 to 65535.", net.JoinHostPort(host, strconv.Itoa(port)))}
	}
	opened, failure := listen(&wirepb.Listener{Protocol: protocol, Host: addr.Unmap().String(), Port: uint32(port)})
	if failure != nil {
		return listenRefusal(net.JoinHostPort(host, strconv.Itoa(port)), failure)
	}
	return opened.Close()
}

// listenRefusal gives the reason why a listener cannot be opened, and what the user can
// do.
func listenRefusal(address string, failure *wirepb.Failure) error {
	switch wire.Code(failure.GetCode()) {
	case wire.AddressInUse:
		return &refusedHere{failure.GetCode(), fmt.Sprintf("Another program listens on %s on this machine: choose another port with --listen, or end that program.", address)}
	case wire.AddressDenied:
		return &refusedHere{failure.GetCode(), fmt.Sprintf("This user may not listen on %s: ports below 1024 are for root, so choose another with --listen.", address)}
	}
	return &refusedHere{failure.GetCode(), fmt.Sprintf("This agent cannot listen on %s: %s.", address, failure.GetMessage())}
}

// anyFree gives a port that was free a moment ago.
func anyFree(host string) (int, error) {
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return 0, &refusedHere{string(wire.AddressUnavailable), fmt.Sprintf("This agent cannot listen on %s: %v.", host, err)}
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}
