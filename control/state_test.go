package control

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/projections"
	rows "github.com/tunnox-net/tunnox/projections/memory"
	"github.com/tunnox-net/tunnox/projections/projectionstest"
)

// The log and the read models tell the same of every client.
func TestViewFoldedFromTheLogEqualsTheReadModels(t *testing.T) {
	log := projectionstest.NewLog(0)
	history := projectionstest.NewHistory(log, projectionstest.Seeded(7))
	store := rows.New()
	projector := projections.NewProjector(log, store, projections.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = projector.Run(ctx) }) // ends with the context's error
	defer running.Wait()
	defer cancel()
	reader := projections.NewReader(store)
	all := newStreams(log)
	folds := newFolds(all)
	for range 8 {
		for range 300 {
			history.Step()
		}
		head := log.Position()
		must(t, reader.Wait(ctx, head))
		live := 0
		all.read()
		for _, id := range all.clients {
			want, wantErr := reader.ClientView(ctx, id, head)
			got, err := folds.view(ctx, id, head)
			if domain.CodeOf(err) != domain.CodeOf(wantErr) {
				t.Fatalf("client %d at %d: %v, the read models say %v", id, head, err, wantErr)
			}
			for i := range got.Users { // no row holds one
				got.Users[i].State.PasswordHash = ""
			}
			if err == nil && !reflect.DeepEqual(got, want) {
				t.Fatalf("client %d at %d:\n%+v\nthe read models say\n%+v", id, head, got, want)
			}
			if err == nil {
				live++
				// And it survives the wire.
				message, err := viewMessage(got)
				must(t, err)
				if sent, err := viewOf(message); err != nil || !reflect.DeepEqual(sent, lean(want)) {
					t.Fatalf("client %d over the wire:\n%+v\nwant\n%+v", id, sent, lean(want))
				}
			}
		}
		if live == 0 {
			t.Fatal("the history has no clients")
		}
	}
}

// streams finds event streams in a log that has none.
type streams struct {
	*projectionstest.Log
	at      domain.Position
	by      map[domain.StreamID][]domain.Record
	clients []int64
}

func newStreams(log *projectionstest.Log) *streams {
	return &streams{Log: log, by: map[domain.StreamID][]domain.Record{}}
}

func (s *streams) read() {
	if s.at == s.Position() {
		return
	}
	for _, r := range s.Records(s.Position())[s.at:] {
		if s.by[r.Stream] == nil && r.Stream.Category() == domain.CategoryClient {
			s.clients = append(s.clients, r.Stream.Number())
		}
		s.by[r.Stream] = append(s.by[r.Stream], r)
		s.at = r.Position
	}
}

func (s *streams) ReadStream(_ context.Context, id domain.StreamID, after domain.Version, limit int) ([]domain.Record, error) {
	s.read()
	all := s.by[id]
	all = all[min(len(all), int(after)):]
	return all[:min(len(all), limit)], nil
}

func TestStateGivesViews(t *testing.T) {
	p := newPlane(t)
	user, a, b := p.pair()
	id, at := p.mapping(user, a, b, 8000)
	s := p.serve("")
	client := p.dial([]string{s.address})
	ctx := t.Context()

	v, err := client.ClientView(ctx, a, at)
	must(t, err)
	if v.Position < at || v.Client.State.ID != a || len(v.Mappings) != 1 || v.Mappings[0].State.ID != id || len(v.Users) != 1 || len(v.Limits) != 1 {
		t.Errorf("view %+v", v)
	}
	if u := v.Users[0].State; u.ID != user || u.PasswordHash != "" || u.Email != "" || !u.Live() {
		t.Errorf("the view's user is %+v: a forwarder needs no more than whether it may use anything", u)
	}
	_, err = client.ClientView(ctx, 12345, 0)
	wantCode(t, err, domain.CodeClientNotFound)
	_, err = client.ClientView(ctx, a, at+1000)
	wantCode(t, err, domain.CodeStoreUnavailable)

	answers, err := client.Clients(ctx, []Want{{a, at}, {b, 0}, {12345, 0}, {a, at}})
	must(t, err)
	if len(answers) != 3 || answers[a].View.Client.State.ID != a || answers[b].View.Client.State.ID != b {
		t.Errorf("answers %+v", answers)
	}
	wantCode(t, answers[12345].Err, domain.CodeClientNotFound)
	many := make([]Want, 2500)
	for i := range many {
		many[i] = Want{ClientID: int64(1_000_000 + i)}
	}
	if answers, err = client.Clients(ctx, many); err != nil || len(answers) != len(many) {
		t.Errorf("%d answers to %d wants, %v", len(answers), len(many), err)
	}

	head, err := client.Ping(ctx)
	if want, _ := p.head(ctx); err != nil || head != want {
		t.Errorf("ping says %d, %v; the log is at %d", head, err, want)
	}
}

// failing stands for read models that are away or lie empty.
type failing struct {
	err   error
	empty bool
	hang  bool
}

func (f failing) ClientView(ctx context.Context, _ int64, _ domain.Position) (domain.ClientView, error) {
	if f.hang {
		<-ctx.Done()
		return domain.ClientView{}, ctx.Err()
	}
	if f.empty {
		return domain.ClientView{}, noSuchClient()
	}
	return domain.ClientView{}, f.err
}

func (f failing) IngressView(context.Context, domain.Ingress, domain.Position) (domain.IngressView, error) {
	return domain.IngressView{}, f.err
}

func TestStateNeedsNoReadModel(t *testing.T) {
	p := newPlane(t)
	user, a, b := p.pair()
	_, at := p.mapping(user, a, b, 8000)
	for name, views := range map[string]Views{"none": nil, "away": failing{err: errors.New("redis: connection refused")},
		"flushed": failing{empty: true}, "hanging": failing{hang: true}} {
		t.Run(name, func(t *testing.T) {
			s := p.serve("", func(c *ServerConfig) { c.Views, c.ViewsWait = views, 20*time.Millisecond })
			client := p.dial([]string{s.address})
			for range 8 { // and after some it is not even asked
				v, err := client.ClientView(t.Context(), a, at)
				must(t, err)
				if len(v.Mappings) != 1 || v.Position < at {
					t.Errorf("view %+v", v)
				}
			}
		})
	}
}

// What had to be folded from the log is kept for other forwarders, by the control
// plane and without names: forwarders write nothing that others believe.
func TestViewsAreKeptByTheControlPlane(t *testing.T) {
	p := newPlane(t)
	user, a, b := p.pair()
	_, at := p.mapping(user, a, b, 8000)
	kept := make(chan domain.ClientView, 1)
	s := p.serve("", func(c *ServerConfig) {
		c.Views = failing{empty: true}
		c.Keep = func(_ context.Context, v domain.ClientView) error { kept <- v; return errors.New("no matter") }
	})
	v, err := p.dial([]string{s.address}).ClientView(t.Context(), a, at)
	must(t, err)
	if k := <-kept; k.Position != v.Position || k.Client.State.ID != a || len(k.Mappings) != 1 || len(k.Users) != 1 || k.Users[0].State.Email != "" {
		t.Errorf("kept %+v of %+v", k, v)
	}
}

func TestRegisterGivesOneIdentityPerRequest(t *testing.T) {
	p := newPlane(t)
	drawn := []int64{200_000_001, 200_000_001, 200_000_002}
	s := p.serve("", func(c *ServerConfig) {
		limit := int64(3)
		c.AnonymousLimits = domain.Limits{MaxMappings: &limit}
		c.DrawID = func() int64 {
			if len(drawn) == 0 {
				return drawAnonymousID()
			}
			id := drawn[0]
			drawn = drawn[1:]
			return id
		}
	})
	client := p.dial([]string{s.address})
	ctx := t.Context()
	key := make([]byte, 32)
	first, err := client.Register(ctx, domain.Registration{PublicKey: key, Name: "laptop", Source: "192.0.2.1:5"})
	must(t, err)
	next, err := client.Register(ctx, domain.Registration{PublicKey: key, Name: "laptop", Source: "192.0.2.1:5"}) // draws the same id first
	must(t, err)
	if first != 200_000_001 || next != 200_000_002 {
		t.Errorf("ids %d and %d", first, next)
	}
	v, err := client.ClientView(ctx, first, 0)
	must(t, err)
	if v.Client.State.Kind != domain.ClientAnonymous || len(v.Limits) != 1 || v.Limits[0].State.Limits.MaxMappings == nil || *v.Limits[0].State.Limits.MaxMappings != 3 {
		t.Errorf("view %+v", v)
	}
	records, err := p.store.ReadStream(ctx, domain.ClientStream(first), 0, 10)
	must(t, err)
	if m := records[0].Meta; m.Actor != "client:200000001" || m.Source != "192.0.2.1:5" || m.Cause != "session at node-001" ||
		m.Allowed != "anonymous registration" || m.Command != "register_client" {
		t.Errorf("recorded as %+v", m)
	}
	_, err = client.Register(ctx, domain.Registration{PublicKey: key[:31], Name: "x"})
	wantCode(t, err, domain.CodeInvalid)
	_, err = client.Register(ctx, domain.Registration{PublicKey: key, Name: "a\nb"})
	wantCode(t, err, domain.CodeInvalid)
	for range 20 {
		id, err := client.Register(ctx, domain.Registration{PublicKey: key})
		if err != nil || !domain.IsAnonymous(id) {
			t.Fatalf("%d, %v", id, err)
		}
	}
}

func create(source, target int64, port int) *domain.CreateMapping {
	return &domain.CreateMapping{SourceClientID: source, TargetClientID: target, Protocol: domain.ProtocolTCP,
		Parts: domain.Parts{Origin: domain.Origin{LocalPort: port}, Service: domain.Service{TargetHost: "127.0.0.1", TargetPort: 80}}}
}

func TestAgentsCommandsAreAuthorised(t *testing.T) {
	p := newPlane(t)
	ctx := t.Context()
	one := int64(1)
	user := p.user(domain.Limits{MaxMappings: &one})
	a, b, c := p.client(user), p.client(user), p.client(user)
	stranger := p.user(domain.Limits{})
	x, y := p.client(stranger), p.client(stranger)
	foreign, _ := p.mapping(stranger, x, y, 7000)
	const anonymous = 200_000_009
	p.submit(domain.RegisterClient{ID: anonymous, PublicKey: make([]byte, 32)})
	toAnonymous, _ := p.mapping(stranger, x, anonymous, 7001)
	s := p.serve("")
	client := p.dial([]string{s.address})
	do := func(command domain.ClientCommand) (domain.ClientResult, error) { return client.Execute(ctx, command) }

	for name, test := range map[string]struct {
		command domain.ClientCommand
		code    domain.Code
	}{
		"between others of the same user":   {domain.ClientCommand{ClientID: a, Create: create(b, c, 1)}, domain.CodeClientNotOwned},
		"from a stranger's client":          {domain.ClientCommand{ClientID: a, Create: create(x, a, 1)}, domain.CodeClientNotOwned},
		"to a stranger's client":            {domain.ClientCommand{ClientID: a, Create: create(a, y, 1)}, domain.CodeClientNotOwned},
		"to an anonymous client":            {domain.ClientCommand{ClientID: a, Create: create(a, anonymous, 1)}, domain.CodeClientNotOwned},
		"from an anonymous client":          {domain.ClientCommand{ClientID: a, Create: create(anonymous, a, 1)}, domain.CodeClientNotOwned},
		"to nobody":                         {domain.ClientCommand{ClientID: a, Create: create(a, 999, 1)}, domain.CodeClientNotOwned},
		"by an anonymous client":            {domain.ClientCommand{ClientID: anonymous, Create: create(anonymous, anonymous, 1)}, domain.CodeClientNotOwned},
		"by nobody":                         {domain.ClientCommand{ClientID: 999, Create: create(999, a, 1)}, domain.CodeClientNotFound},
		"with a port out of range":          {domain.ClientCommand{ClientID: a, Create: create(a, b, 1<<31-1)}, domain.CodeInvalid},
		"socks5 with a service":             {domain.ClientCommand{ClientID: a, Create: &domain.CreateMapping{SourceClientID: a, TargetClientID: b, Protocol: "socks5", Parts: domain.Parts{Origin: domain.Origin{LocalPort: 1}, Service: domain.Service{TargetHost: "h", TargetPort: 1}}}}, domain.CodeInvalid},
		"delete a stranger's":               {domain.ClientCommand{ClientID: a, Delete: &domain.DeleteMapping{ID: foreign}}, domain.CodeMappingNotFound},
		"delete one that there is not":      {domain.ClientCommand{ClientID: a, Delete: &domain.DeleteMapping{ID: 99999}}, domain.CodeMappingNotFound},
		"a page too long":                   {domain.ClientCommand{ClientID: a, List: &domain.MappingPage{Limit: 5000}}, domain.CodeInvalid},
		"a key too long":                    {domain.ClientCommand{ClientID: a, Key: strings.Repeat("k", 300), Create: create(a, b, 1)}, domain.CodeInvalid},
		"a list of a client that is not":    {domain.ClientCommand{ClientID: 999, List: &domain.MappingPage{}}, domain.CodeClientNotFound},
		"an operator's limit stands anyway": {domain.ClientCommand{ClientID: a, Delete: &domain.DeleteMapping{ID: 0}}, domain.CodeMappingNotFound},
	} {
		if _, err := do(test.command); domain.CodeOf(err) != test.code {
			t.Errorf("%s: %v, want %s", name, err, test.code)
		}
	}

	made, err := do(domain.ClientCommand{ClientID: a, Key: "k1", Source: "192.0.2.7:1", Request: "r-1", Create: create(a, b, 8000)})
	must(t, err)
	id := made.Mappings[0].State.ID
	if m := made.Mappings[0].State; m.UserID != user || m.SourceClientID != a || m.LocalHost != "127.0.0.1" || made.Position == 0 {
		t.Errorf("made %+v", made)
	}
	records, err := p.store.ReadStream(ctx, domain.MappingStream(id), 0, 1)
	must(t, err)
	if m := records[0].Meta; m.Actor != domainActor(a) || m.Source != "192.0.2.7:1" || m.Request != "r-1" || m.Cause != "session at node-001" || m.Command != "create_mapping" {
		t.Errorf("recorded as %+v", m)
	}
	// Repeated: the same answer. Changed: refused. Beyond the quota: refused.
	again, err := do(domain.ClientCommand{ClientID: a, Key: "k1", Source: "192.0.2.7:1", Request: "r-1", Create: create(a, b, 8000)})
	if err != nil || !again.Duplicate || again.Mappings[0].State.ID != id {
		t.Errorf("repeated: %+v, %v", again, err)
	}
	_, err = do(domain.ClientCommand{ClientID: a, Key: "k1", Create: create(a, b, 8001)})
	wantCode(t, err, domain.CodeIdempotencyMismatch)
	_, err = do(domain.ClientCommand{ClientID: a, Create: create(a, b, 8001)})
	wantCode(t, err, domain.CodeQuotaMappings)
	if !strings.Contains(err.Error(), "may have 1") {
		t.Errorf("the refusal does not name the limit: %v", err)
	}

	// Lists show what a client is an end of.
	for who, want := range map[int64]int{a: 1, b: 1, c: 0, x: 2, anonymous: 1} {
		if r, err := do(domain.ClientCommand{ClientID: who, List: &domain.MappingPage{}}); err != nil || len(r.Mappings) != want {
			t.Errorf("client %d lists %+v, %v", who, r, err)
		}
	}
	page, err := do(domain.ClientCommand{ClientID: x, List: &domain.MappingPage{Limit: 1}})
	if err != nil || len(page.Mappings) != 1 || page.Next != foreign {
		t.Errorf("first page %+v, %v", page, err)
	}
	page, err = do(domain.ClientCommand{ClientID: x, List: &domain.MappingPage{Limit: 1, After: page.Next}})
	if err != nil || len(page.Mappings) != 1 || page.Next != 0 || page.Mappings[0].State.ID != toAnonymous {
		t.Errorf("second page %+v, %v", page, err)
	}

	// The target may end it as well, a third client of the user may not, and who
	// repeats the end is told that it was done.
	_, err = do(domain.ClientCommand{ClientID: c, Delete: &domain.DeleteMapping{ID: id}})
	wantCode(t, err, domain.CodeMappingNotFound)
	r, err := do(domain.ClientCommand{ClientID: b, Key: "end", Delete: &domain.DeleteMapping{ID: id}})
	if err != nil || r.Duplicate || !r.Mappings[0].State.Deleted {
		t.Errorf("deleted: %+v, %v", r, err)
	}
	if r, err = do(domain.ClientCommand{ClientID: b, Key: "end", Delete: &domain.DeleteMapping{ID: id}}); err != nil || !r.Duplicate {
		t.Errorf("deleted again with the key: %+v, %v", r, err)
	}
	_, err = do(domain.ClientCommand{ClientID: b, Delete: &domain.DeleteMapping{ID: id}})
	wantCode(t, err, domain.CodeMappingNotFound)
	if _, err := do(domain.ClientCommand{ClientID: anonymous, Delete: &domain.DeleteMapping{ID: toAnonymous}}); err != nil {
		t.Errorf("an anonymous client leaves a mapping: %v", err)
	}

	// Who is disabled asks in vain.
	p.submit(domain.SetClientEnabled{ID: a})
	_, err = do(domain.ClientCommand{ClientID: a, List: &domain.MappingPage{}})
	wantCode(t, err, domain.CodeClientDisabled)
	p.submit(domain.SetUserEnabled{ID: user})
	_, err = do(domain.ClientCommand{ClientID: b, List: &domain.MappingPage{}})
	wantCode(t, err, domain.CodeUserDisabled)
}

func domainActor(id int64) string { return fmt.Sprintf("client:%d", id) }

// A node asks for the clients that have a session there, and for nobody else.
func TestANodeSpeaksForItsClientsOnly(t *testing.T) {
	p := newPlane(t)
	user, a, b := p.pair()
	mapping, _ := p.mapping(user, a, b, 7000)
	var away error
	s := p.serve("", func(c *ServerConfig) {
		c.Connected = func(_ context.Context, clientID int64, node string) (bool, error) {
			return clientID == a && node == "node-001", away
		}
	})
	at := func(node string) *Client {
		return p.dial([]string{s.address}, func(c *Config) { c.Trust = p.trust(node) })
	}
	here, elsewhere := at("node-001"), at("node-002")
	before, err := p.head(t.Context())
	must(t, err)
	for name, ask := range map[string]struct {
		node    *Client
		command domain.ClientCommand
	}{
		"another client's deletion":   {here, domain.ClientCommand{ClientID: b, Delete: &domain.DeleteMapping{ID: mapping}}},
		"another client's list":       {here, domain.ClientCommand{ClientID: b, List: &domain.MappingPage{}}},
		"the client at another node":  {elsewhere, domain.ClientCommand{ClientID: a, Delete: &domain.DeleteMapping{ID: mapping}}},
		"a client that is not at all": {here, domain.ClientCommand{ClientID: 999, List: &domain.MappingPage{}}},
	} {
		_, err := ask.node.Execute(t.Context(), ask.command)
		if domain.CodeOf(err) != codeNotConnected {
			t.Errorf("%s: %v, want %s", name, err, codeNotConnected)
		}
	}
	if after, err := p.head(t.Context()); err != nil || after != before {
		t.Errorf("the log went from %d to %d, %v", before, after, err)
	}
	away = errors.New("secret of the directory")
	_, err = here.Execute(t.Context(), domain.ClientCommand{ClientID: a, Delete: &domain.DeleteMapping{ID: mapping}})
	if wantCode(t, err, domain.CodeStoreUnavailable); strings.Contains(err.Error(), "secret") {
		t.Errorf("the node is told %v", err)
	}
	away = nil
	if _, err = here.Execute(t.Context(), domain.ClientCommand{ClientID: a, Delete: &domain.DeleteMapping{ID: mapping}}); err != nil {
		t.Error(err)
	}
}
