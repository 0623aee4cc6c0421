package domain

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestRandomHistories runs random commands over a few users, clients and
// listeners, so that they meet, and checks after each what must always hold.
func TestRandomHistories(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld()
		for range rapid.IntRange(1, 60).Draw(t, "commands") {
			c := drawCommand(t)
			before := w.held()
			d, err := w.run(c)
			if err != nil {
				if CodeOf(err) == "" {
					t.Fatalf("%#v: %v", c, err)
				}
				continue
			}
			w.checkClaims(t)
			w.checkHoldings(t)
			w.checkDeleted(t)
			w.checkOwners(t)
			w.checkLimits(t, before, c)
			w.checkAgain(t, c, d)
		}
	})
}

var (
	someUsers     = []int64{FirstUserID, FirstUserID + 1, FirstUserID + 2}
	someManaged   = []int64{FirstClientID, FirstClientID + 1, FirstClientID + 2, FirstClientID + 3}
	someAnonymous = []int64{FirstAnonymousID, LastAnonymousID}
	someClients   = slices.Concat(someManaged, someAnonymous)
	someMappings  = []int64{1001, 1002, 1003, 1004, 1005, 1006}
)

func drawCommand(t *rapid.T) Command {
	user := rapid.SampledFrom(someUsers)
	managed := rapid.SampledFrom(someManaged)
	client := rapid.SampledFrom(someClients)
	mapping := rapid.SampledFrom(someMappings)
	name := rapid.SampledFrom([]string{"ann", "Ann", "bob", "", "a b"})
	email := rapid.SampledFrom([]string{"ann@example.org", "ANN@example.org", "bob@example.org", "x"})
	port := rapid.SampledFrom([]int{80, 81, 82, 0})
	host := rapid.SampledFrom([]string{"", "127.0.0.1", "::ffff:127.0.0.1", "0.0.0.0", "::1", "0:0::1", "x"})
	small := rapid.Int64Range(1, 3)
	hash := rapid.Custom(func(t *rapid.T) []byte {
		return bytes.Repeat([]byte{rapid.SampledFrom([]byte{1, 1, 1, 2}).Draw(t, "hash")}, hashLength)
	})
	key := rapid.Custom(func(t *rapid.T) []byte {
		return bytes.Repeat([]byte{rapid.SampledFrom([]byte{1, 1, 2}).Draw(t, "key")}, publicKeyLength)
	})
	switch rapid.IntRange(0, 51).Draw(t, "command") {
	case 0, 1:
		return CreateUser{ID: user.Draw(t, "user"), Username: name.Draw(t, "name"), Email: email.Draw(t, "email"), Limits: drawLimits(t)}
	case 2:
		return ChangeUser{ID: user.Draw(t, "user"), Username: maybe(t, name), Email: maybe(t, email), PasswordHash: maybe(t, name)}
	case 3:
		return SetUserEnabled{ID: user.Draw(t, "user"), Enabled: rapid.Bool().Draw(t, "enabled")}
	case 4:
		return DeleteUser{ID: user.Draw(t, "user")}
	case 35:
		return EraseUser{ID: user.Draw(t, "user")}
	case 5, 6, 7:
		return CreateClient{ID: managed.Draw(t, "client"), UserID: user.Draw(t, "user"), Name: "n", PublicKey: key.Draw(t, "key"),
			Commands: rapid.SampledFrom(allCommands).Draw(t, "commands")}
	case 8:
		return RegisterClient{ID: rapid.SampledFrom(someAnonymous).Draw(t, "client"), PublicKey: key.Draw(t, "key"), Limits: drawLimits(t)}
	case 9:
		return ChangeClient{ID: client.Draw(t, "client"), Name: maybe(t, name), Description: maybe(t, name),
			Commands: rapid.SampledFrom([]*Commands{nil, new(CommandsNone), new(CommandsAll)}).Draw(t, "commands")}
	case 10:
		if rapid.Bool().Draw(t, "announce") {
			return AnnounceKey{ID: client.Draw(t, "client"), StaticKey: key.Draw(t, "key")}
		}
		return RotateCredential{ID: client.Draw(t, "client"), PublicKey: key.Draw(t, "key")}
	case 11:
		return SetClientEnabled{ID: client.Draw(t, "client"), Enabled: rapid.Bool().Draw(t, "enabled")}
	case 12:
		return DeleteClient{ID: client.Draw(t, "client")}
	case 13, 14, 15, 16:
		return CreateMapping{ID: mapping.Draw(t, "mapping"), UserID: user.Draw(t, "user"), Any: rapid.IntRange(0, 3).Draw(t, "any") > 0, Protocol: ProtocolTCP,
			SourceClientID: client.Draw(t, "source"), TargetClientID: client.Draw(t, "target"),
			Parts: Parts{Origin: Origin{LocalHost: host.Draw(t, "local_host"), LocalPort: port.Draw(t, "local_port")}, Service: Service{TargetHost: "db", TargetPort: 5432}}}
	case 17:
		p := Patch{}
		for _, field := range rapid.SliceOfDistinct(rapid.SampledFrom([]string{"name", "local_host", "local_port"}), rapid.ID).Draw(t, "fields") {
			p[field], _ = json.Marshal(map[string]any{"name": name.Draw(t, "name"), "local_host": host.Draw(t, "local_host"), "local_port": port.Draw(t, "local_port")}[field])
		}
		return ChangeMapping{ID: mapping.Draw(t, "mapping"), Patch: p}
	case 18, 19:
		return SetMappingEnabled{ID: mapping.Draw(t, "mapping"), Enabled: rapid.Bool().Draw(t, "enabled")}
	case 22:
		return SetUserRole{ID: user.Draw(t, "user"), Role: rapid.SampledFrom([]Role{RoleUser, RoleAdmin, "root"}).Draw(t, "role")}
	case 23:
		return SetUserPlan{ID: user.Draw(t, "user"), Plan: name.Draw(t, "plan"), Limits: drawLimits(t)}
	case 24, 25:
		return CreateKey{ID: small.Draw(t, "key"), UserID: rapid.SampledFrom(append([]int64{0}, someUsers...)).Draw(t, "user"), Prefix: "p",
			Hash: hash.Draw(t, "hash"), Scopes: []Scope{rapid.SampledFrom([]Scope{ScopeRead, ScopeAdmin, "x"}).Draw(t, "scope")}}
	case 26:
		return RevokeKey{ID: small.Draw(t, "key")}
	case 27:
		return BeginLogin{ID: small.Draw(t, "login"), UserID: user.Draw(t, "user"), PasswordHash: name.Draw(t, "password"),
			Family: hash.Draw(t, "family"), Hash: hash.Draw(t, "hash"), ExpiresAt: time.Unix(10, 0).UTC()}
	case 28:
		return RefreshLogin{ID: small.Draw(t, "login"), Family: hash.Draw(t, "family"), Hash: hash.Draw(t, "hash"), Next: hash.Draw(t, "next"),
			ExpiresAt: time.Unix(10, 0).UTC(), At: time.Unix(rapid.Int64Range(8, 11).Draw(t, "at"), 0)}
	case 29:
		return EndLogin{ID: small.Draw(t, "login"), Reason: EndLogout}
	case 30:
		return CreateShare{ID: small.Draw(t, "share"), UserID: user.Draw(t, "user"), TargetClientID: client.Draw(t, "target"), Protocol: ProtocolTCP,
			Service: Service{TargetHost: "db", TargetPort: 5432}, Hash: hash.Draw(t, "hash"), MaxUses: rapid.Int64Range(0, 3).Draw(t, "uses")}
	case 31:
		return RevokeShare{ID: small.Draw(t, "share")}
	case 32, 33:
		return RedeemShare{ID: small.Draw(t, "share"), Hash: hash.Draw(t, "hash"), MappingID: mapping.Draw(t, "mapping"),
			RedeemerID: user.Draw(t, "user"), Any: rapid.Bool().Draw(t, "any"), SourceClientID: client.Draw(t, "source"), Origin: Origin{LocalPort: port.Draw(t, "local_port")}}
	case 44:
		return CreateInvite{ID: small.Draw(t, "invite"), UserID: user.Draw(t, "user"), Hash: hash.Draw(t, "hash"), MaxUses: rapid.Int64Range(0, 3).Draw(t, "uses")}
	case 45:
		return RevokeInvite{ID: small.Draw(t, "invite")}
	case 46, 47:
		return RedeemInvite{ID: small.Draw(t, "invite"), Hash: hash.Draw(t, "hash"), ClientID: managed.Draw(t, "new"),
			PublicKey: bytes.Repeat([]byte{byte(rapid.IntRange(1, 3).Draw(t, "key"))}, publicKeyLength)}
	case 48, 49:
		return CreateDomain{ID: small.Draw(t, "domain"), UserID: user.Draw(t, "user"), Host: rapid.SampledFrom([]string{"a.example.org", "a.example.org", "b.example.org", "x"}).Draw(t, "host"),
			Token: "ABCDEFGHIJKLMNOPQRSTUVWXYZ"}
	case 50:
		return VerifyDomain{ID: small.Draw(t, "domain")}
	case 51:
		return DeleteDomain{ID: small.Draw(t, "domain")}
	case 34:
		return ClaimClient{ID: rapid.SampledFrom(someAnonymous).Draw(t, "client"), NewID: managed.Draw(t, "new"), UserID: user.Draw(t, "user"),
			PublicKey: bytes.Repeat([]byte{1}, publicKeyLength)}
	case 36, 41:
		return CreateWebhook{ID: small.Draw(t, "webhook"), UserID: rapid.SampledFrom(append([]int64{0}, someUsers...)).Draw(t, "user"),
			URL: rapid.SampledFrom([]string{"https://example.org/a", "x"}).Draw(t, "url"), All: rapid.Bool().Draw(t, "all")}
	case 37:
		return ChangeWebhook{ID: small.Draw(t, "webhook"), URL: maybe(t, rapid.Just("https://example.org/b")), All: maybe(t, rapid.Bool()), Admin: rapid.Bool().Draw(t, "admin"),
			Events: maybe(t, rapid.SampledFrom([][]string{nil, {"mapping_*"}, {"no_such"}})), Description: maybe(t, name)}
	case 38:
		return SetWebhookEnabled{ID: small.Draw(t, "webhook"), Enabled: rapid.Bool().Draw(t, "enabled")}
	case 39:
		return RotateWebhookSecret{ID: small.Draw(t, "webhook")}
	case 42:
		return DisconnectClient{ID: client.Draw(t, "client"), Nodes: rapid.SampledFrom([][]string{nil, {"node-001"}}).Draw(t, "nodes"), Epoch: small.Draw(t, "epoch")}
	case 43:
		return DrainNode{ID: small.Draw(t, "node"), Since: time.Unix(small.Draw(t, "since"), 0)}
	case 40:
		return DeleteWebhook{ID: small.Draw(t, "webhook")}
	case 20:
		return DeleteMapping{ID: mapping.Draw(t, "mapping")}
	default:
		return SetQuota{ID: rapid.SampledFrom(slices.Concat(someUsers, someAnonymous)).Draw(t, "account"), Limits: drawLimits(t),
			Keep: rapid.SliceOfDistinct(rapid.SampledFrom([]string{"max_clients", "max_mappings"}), rapid.ID).Draw(t, "keep")}
	}
}

func maybe[T any](t *rapid.T, g *rapid.Generator[T]) *T {
	return rapid.Ptr(g, true).Draw(t, "optional")
}

func drawLimits(t *rapid.T) Limits {
	limit := rapid.Ptr(rapid.Int64Range(0, 3), true)
	return Limits{MaxClients: limit.Draw(t, "max_clients"), MaxMappings: limit.Draw(t, "max_mappings"),
		MaxActiveMappings: limit.Draw(t, "max_active_mappings")}
}

// holding is what an account has, counted from the clients and mappings
// themselves and not from its quota.
type holding struct{ clients, mappings, active, keys, shares, webhooks, invites, domains int64 }

func (w *world) held() map[int64]holding {
	held := map[int64]holding{}
	for id := range w.streams {
		switch a := w.state(id).(type) {
		case *Client:
			if a.Live() && a.Kind == ClientManaged {
				h := held[a.AccountID()]
				h.clients++
				held[a.AccountID()] = h
			}
		case *Key:
			if a.Live() && a.UserID != 0 {
				h := held[a.UserID]
				h.keys++
				held[a.UserID] = h
			}
		case *Share:
			if a.Live() {
				h := held[a.UserID]
				h.shares++
				held[a.UserID] = h
			}
		case *Invite:
			if a.Live() {
				h := held[a.UserID]
				h.invites++
				held[a.UserID] = h
			}
		case *Domain:
			if a.Live() {
				h := held[a.UserID]
				h.domains++
				held[a.UserID] = h
			}
		case *Webhook:
			if a.Live() && a.UserID != 0 {
				h := held[a.UserID]
				h.webhooks++
				held[a.UserID] = h
			}
		case *Mapping:
			if !a.Live() {
				continue
			}
			for _, account := range a.Accounts() {
				h := held[account]
				h.mappings++
				if a.Active() {
					h.active++
				}
				held[account] = h
			}
		}
	}
	return held
}

// checkHoldings compares every quota with what lives, and what lives with its ends.
func (w *world) checkHoldings(t *rapid.T) {
	held := w.held()
	for id := range w.streams {
		switch a := w.state(id).(type) {
		case *Quota:
			counted := holding{int64(len(a.Clients)), int64(len(a.Mappings)), a.Active, int64(len(a.Keys)), int64(len(a.Shares)), int64(len(a.Webhooks)), int64(len(a.Invites)), int64(len(a.Domains))}
			if counted != held[a.Account] {
				t.Fatalf("quota of %d counts %+v, there are %+v", a.Account, counted, held[a.Account])
			}
			delete(held, a.Account)
		case *Mapping:
			if a.Live() {
				w.checkEnds(t, a)
			}
		case *Share:
			if a.Live() && !w.live(ClientStream(a.TargetClientID)) {
				t.Fatalf("share %d lives without its client", a.ID)
			}
		case *Domain:
			if use := (w.state(HostStream(a.Host)).(*Host)).Names[a.Host]; a.Live() && (a.Verified() && use.Owner != a.UserID || !w.live(UserStream(a.UserID))) {
				t.Fatalf("domain %+v lives without its user, or its host is the user %d's", a, use.Owner)
			}
		case *Key:
			if a.Live() && a.UserID != 0 && !w.live(UserStream(a.UserID)) {
				t.Fatalf("key %d lives without its user", a.ID)
			}
		case *Webhook:
			if a.Live() && a.UserID != 0 && !w.live(UserStream(a.UserID)) {
				t.Fatalf("webhook %d lives without its user", a.ID)
			}
		case *Client:
			if a.Live() && a.Kind == ClientManaged && !w.live(UserStream(a.UserID)) {
				t.Fatalf("client %d lives without its user", a.ID)
			}
		}
	}
	if len(held) > 0 {
		t.Fatalf("held by accounts without a quota: %+v", held)
	}
}

// checkEnds says that a mapping lives with its users and clients only, that it
// knows whose its ends are, and that every account in it knows its ends.
func (w *world) checkEnds(t *rapid.T, m *Mapping) {
	for _, id := range []StreamID{UserStream(m.UserID), ClientStream(m.SourceClientID), ClientStream(m.TargetClientID)} {
		if !w.live(id) {
			t.Fatalf("mapping %d lives without %s", m.ID, id)
		}
	}
	for end, user := range map[int64]int64{m.SourceClientID: m.SourceUserID, m.TargetClientID: m.TargetUserID} {
		c := w.state(ClientStream(end)).(*Client)
		want := c.UserID
		if want == m.UserID {
			want = 0
		}
		if m.SourceClientID != m.TargetClientID && user != want {
			t.Fatalf("mapping %d has user %d at client %d, which is of %d", m.ID, user, end, c.UserID)
		}
	}
	for _, account := range m.Accounts() {
		held := w.state(QuotaStream(account)).(*Quota).Mappings[m.ID]
		if held.SourceClientID != m.SourceClientID || held.TargetClientID != m.TargetClientID || held.Active == m.Disabled {
			t.Fatalf("quota of %d holds mapping %d as %+v, it is %+v", account, m.ID, held, m)
		}
	}
}

func (w *world) live(id StreamID) bool {
	a, ok := w.state(id).(interface{ Live() bool })
	return ok && a.Live()
}

// checkClaims compares the claims held with those the live states imply.
func (w *world) checkClaims(t *rapid.T) {
	want := map[[2]string]StreamID{}
	for id := range w.streams {
		var claims []Claim
		switch a := w.state(id).(type) {
		case *User:
			if a.Live() {
				claims = userClaims(a.ID, a.Username, a.Email)
			}
		case *Mapping:
			if a.Live() {
				claims = a.claims()
			}
		}
		for _, c := range claims {
			k := [2]string{c.Scope, c.Value}
			if other, ok := want[k]; ok {
				t.Fatalf("%s and %s both live with %v", other, c.Owner, k)
			}
			want[k] = c.Owner
		}
	}
	if !maps.Equal(want, w.claims) {
		t.Fatalf("claims held %v, live states want %v", w.claims, want)
	}
}

// checkDeleted says that what ended is closed for ever and only that.
func (w *world) checkDeleted(t *rapid.T) {
	for id := range w.streams {
		if id.Category() == CategoryQuota {
			account := id.Number()
			owner := UserStream(account)
			if IsAnonymous(account) {
				owner = ClientStream(account)
			}
			if w.closed[id] == w.live(owner) {
				t.Fatalf("%s closed %v, its account lives %v", id, w.closed[id], w.live(owner))
			}
			continue
		}
		if c := id.Category(); (c == CategoryNode || c == CategoryHost || c == CategoryPort) && !w.closed[id] {
			continue // there is always another life of it, or another user who has it
		}
		if w.closed[id] == w.live(id) {
			t.Fatalf("%s closed %v and live %v", id, w.closed[id], w.live(id))
		}
	}
}

// checkOwners says that a record belongs to the account of what it changed, whoever
// changed it: the audit of an account must find it there.
func (w *world) checkOwners(t *rapid.T) {
	for id, records := range w.streams {
		want := id.Number()
		switch a := w.state(id).(type) {
		case *Client:
			want = a.AccountID()
		case *Mapping:
			want = a.UserID
		case *Key:
			want = a.UserID
		case *Login:
			want = a.UserID
		case *Share:
			want = a.UserID
		case *Webhook:
			want = a.UserID
		case *Invite:
			want = a.UserID
		case *Domain:
			want = a.UserID
		case *Node:
			want = 0
		case *Host:
			continue // each record belongs to the user who had the host then
		}
		for _, r := range records {
			if r.Owner != want {
				t.Fatalf("%s %s belongs to %d, want %d", id, r.Name, r.Owner, want)
			}
		}
	}
}

// checkLimits says that no command took an account beyond a limit. Having more
// than a limit is only possible by lowering the limit.
func (w *world) checkLimits(t *rapid.T, before map[int64]holding, c Command) {
	for account, now := range w.held() {
		l, was := w.state(QuotaStream(account)).(*Quota).Limits, before[account]
		for _, r := range []struct {
			what     string
			was, now int64
			limit    *int64
		}{
			{"clients", was.clients, now.clients, l.MaxClients},
			{"mappings", was.mappings, now.mappings, l.MaxMappings},
			{"active mappings", was.active, now.active, l.MaxActiveMappings},
		} {
			if r.limit != nil && r.now > r.was && r.now > *r.limit {
				t.Fatalf("%s took account %d to %d %s, may have %d", c.CommandName(), account, r.now, r.what, *r.limit)
			}
		}
	}
}

// checkAgain repeats the command: a change asked for again is nothing to do, a
// new thing's id is in use, an ended thing is not there.
func (w *world) checkAgain(t *rapid.T, c Command, first Decision) {
	d, err := w.decide(c)
	switch {
	case c.CommandName() == "refresh_login":
		// Again it is a reuse, or the login has ended by it.
	case c.CommandName() == "rotate_webhook_secret":
		// Again it is the next secret.
	case c.CommandName() == "disconnect_client", c.CommandName() == "drain_node":
		// Again it is another request.
		if err != nil || len(d.Changes) != 1 {
			t.Fatalf("%s again gives %+v, %v", c.CommandName(), d, err)
		}
	case c.CommandName() == "end_login":
		if CodeOf(err) != CodeLoginEnded {
			t.Fatalf("%s again: %v", c.CommandName(), err)
		}
	case c.CommandName() == "redeem_invite":
		// The same key again gets the client that it got before.
		if err != nil || len(d.Changes) > 0 {
			t.Fatalf("%s again gives %+v, %v", c.CommandName(), d, err)
		}
	case slices.ContainsFunc([]string{"create_", "register_", "begin_", "redeem_", "claim_"}, func(p string) bool { return strings.HasPrefix(c.CommandName(), p) }):
		if err == nil {
			t.Fatalf("%s was accepted twice", c.CommandName())
		}
	case strings.HasPrefix(c.CommandName(), "delete_"), strings.HasPrefix(c.CommandName(), "revoke_"):
		if !strings.HasSuffix(string(CodeOf(err)), "_not_found") {
			t.Fatalf("%s again: %v", c.CommandName(), err)
		}
	case err != nil || len(d.Changes) > 0 || len(d.Claims) > 0 || len(d.Releases) > 0:
		t.Fatalf("%s again gives %+v, %v; first it gave %+v", c.CommandName(), d, err, first)
	}
}

// TestLargeDeletesNeedFewRounds: a delete asks for all it needs at once, however
// much hangs on it.
func TestLargeDeletesNeedFewRounds(t *testing.T) {
	const n = 60
	w := newWorld()
	mustRun(t, w, "create_user id=100000001 username=ann email=ann@example.org")
	for i := range n {
		mustRun(t, w, fmt.Sprintf("create_client id=%d user=100000001 name=c key=1", FirstClientID+int64(i)))
		mustRun(t, w, fmt.Sprintf("register_client id=%d key=1", FirstAnonymousID+int64(i)))
		mustRun(t, w, fmt.Sprintf("create_mapping id=%d user=100000001 any=true protocol=tcp source=%d target=%d local_port=80 target_host=db target_port=80",
			FirstMappingID+int64(i), FirstAnonymousID+int64(i), FirstClientID+int64(i)))
	}
	mustRun(t, w, "delete_user id=100000001")
	if held := w.held(); len(held) != 0 {
		t.Fatalf("still held: %v", held)
	}
}

func mustRun(t *testing.T, w *world, line string) {
	t.Helper()
	c, err := parseCommand(line)
	if err == nil {
		_, err = w.run(c)
	}
	if err != nil {
		t.Fatalf("%s: %v", line, err)
	}
}

// A client may be an end of so many mappings and no more, whatever the account may
// have; another client of the account still may.
func TestMappingsOfOneClient(t *testing.T) {
	const user, full, other = FirstUserID + 1, FirstClientID + 1, FirstClientID + 2
	quota := &Quota{Account: user, Mappings: map[int64]HeldMapping{}}
	for i := range int64(MaxClientMappings - 1) {
		quota.Mappings[i+1] = HeldMapping{SourceClientID: full, TargetClientID: full}
	}
	create := func(source, target int64) error {
		c := CreateMapping{ID: FirstMappingID, UserID: user, SourceClientID: source, TargetClientID: target, Protocol: ProtocolTCP,
			Parts: Parts{Origin: Origin{LocalPort: 80}, Service: Service{TargetHost: "localhost", TargetPort: 80}}}
		_, err := c.Decide(States{UserStream(user): &User{ID: user}, QuotaStream(user): quota, MappingStream(c.ID): new(Mapping),
			ClientStream(full):  &Client{ID: full, UserID: user, Kind: ClientManaged},
			ClientStream(other): &Client{ID: other, UserID: user, Kind: ClientManaged}})
		return err
	}
	if err := create(full, full); err != nil {
		t.Fatalf("the last mapping that is allowed: %v", err)
	}
	quota.Mappings[MaxClientMappings] = HeldMapping{SourceClientID: other, TargetClientID: full}
	for _, ends := range [][2]int64{{full, other}, {other, full}} {
		err := create(ends[0], ends[1])
		if CodeOf(err) != CodeQuotaClientMappings || !strings.Contains(err.Error(), fmt.Sprint(MaxClientMappings)) {
			t.Errorf("one more, from %d to %d: %v", ends[0], ends[1], err)
		}
	}
	if err := create(other, other); err != nil {
		t.Errorf("another client's: %v", err)
	}
}

// TestReads: every command names its subject first, no stream twice, and a
// decision without states asks for streams or decides on empty ones; it never panics.
func TestReads(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := drawCommand(t)
		reads := c.Reads()
		if reads[0] != c.Subject() {
			t.Fatalf("%s reads %s before its subject %s", c.CommandName(), reads[0], c.Subject())
		}
		if sorted := slices.Sorted(slices.Values(reads)); len(slices.Compact(sorted)) != len(reads) {
			t.Fatalf("%s reads a stream twice: %v", c.CommandName(), reads)
		}
		_, err := c.Decide(States{})
		if need, ok := errors.AsType[*NeedStreams](err); ok && len(need.Streams) == 0 {
			t.Fatalf("%s needs no streams: %v", c.CommandName(), err)
		}
	})
}

// TestCloneSharesNothing: what Apply does to a clone is not seen in the original.
func TestCloneSharesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld()
		for range 25 {
			_, _ = w.run(drawCommand(t))
		}
		for id, records := range w.streams {
			cut := rapid.IntRange(0, len(records)).Draw(t, "cut")
			a := NewAggregate(id)
			if err := Fold(a, records[:cut]); err != nil {
				t.Fatal(err)
			}
			before := compact(a)
			if err := Fold(a.Clone(), records[cut:]); err != nil {
				t.Fatal(err)
			}
			if after := compact(a); after != before {
				t.Fatalf("%s: %s became %s by applying to a clone", id, before, after)
			}
		}
	})
}
