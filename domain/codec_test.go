package domain

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// published is one full example of every event, by name. A field left out here
// would be a field nobody notices changing, so TestExamplesAreFull forbids it.
var published = func() map[string]Event {
	n := func(v int64) *int64 { return &v }
	key := bytes.Repeat([]byte{7}, publicKeyLength)
	hash, moment := bytes.Repeat([]byte{9}, hashLength), time.Date(2026, 12, 31, 12, 0, 0, 0, time.UTC)
	var limits Limits
	for i, limit := range limits.fields() {
		*limit.at = n(int64(i + 1))
	}
	all := []Event{
		UserCreated{UserID: 100000001, Username: "ann", Email: "ann@example.org"},
		UserChanged{Username: "anna", Email: "anna@example.org"},
		UserPasswordSet{Hash: "$argon2id$v=19$m=65536,t=3,p=4$c2FsdA$aGFzaA"},
		UserDisabled{}, UserEnabled{}, UserDeleted{}, UserErased{},
		ClientCreated{ClientID: 600000000, UserID: 100000001, Name: "laptop", Description: "under the desk", PublicKey: key, Commands: CommandsOwn},
		ClientRegistered{ClientID: 200000000, Name: "pi", PublicKey: key},
		ClientChanged{Name: "notebook", Description: "on the desk"},
		ClientCommandsSet{Commands: CommandsAll},
		ClientCredentialRotated{PublicKey: key},
		ClientKeyAnnounced{StaticKey: key, Number: 2},
		ClientDisabled{}, ClientEnabled{}, ClientDeleted{},
		ClientDisconnectRequested{Nodes: []string{"node-001", "node-002"}, Epoch: 7},
		NodeDrainRequested{NodeID: "node-001", Since: moment},
		NodeCertified{NodeID: "node-001", Key: key, Until: moment, Names: []string{"fra1.example.org"}, Token: "a-token"},
		NodeRevoked{NodeID: "node-001"},
		PortTaken{Port: 20000, Protocol: ProtocolTCP, MappingID: 1001, UserID: 100000001}, PortFreed{Protocol: ProtocolTCP},
		HostTaken{Host: "brave-otter", Path: "/app", MappingID: 1001, UserID: 100000001, Whole: true}, HostFreed{Host: "brave-otter", Path: "/app"},
		MappingCreated{MappingID: 1001, UserID: 100000001, Name: "db", Protocol: ProtocolTCP, SourceClientID: 600000000,
			TargetClientID: 600000001, SourceUserID: 100000002, ShareID: 7, Origin: Origin{LocalHost: "127.0.0.1", LocalPort: 5432, PublicPort: OnePort(20000), PublicHost: "brave-otter", PublicPath: "/app"}, Service: Service{TargetHost: "db.internal", TargetPort: 5433, TargetLast: 5444, TargetScheme: "https", Target: "unix:/run/db.sock"}, Options: allOptions},
		MappingChanged{Parts{"db2", Origin{LocalHost: "0.0.0.0", LocalPort: 5434, PublicPort: OnePort(20001), PublicHost: "calm-heron", PublicPath: "/"}, Service{TargetHost: "10.0.0.1", TargetPort: 5435, TargetLast: 5444, TargetScheme: "h2c", Target: "file:/srv/www"}, allOptions}},
		MappingDisabled{}, MappingEnabled{}, MappingDeleted{},
		QuotaSet{Account: 100000001, Limits: limits},
		QuotaTaken{Resources: []Resource{ResourceClient, ResourceMapping, ResourceActiveMapping}, ID: 1001,
			SourceClientID: 600000000, TargetClientID: 600000001, FurtherClientIDs: []int64{600000002}, PublicPorts: 3},
		QuotaReturned{Resources: []Resource{ResourceMapping, ResourceActiveMapping}, ID: 1001},
		QuotaMoved{ID: 1001, SourceClientID: 600000000, TargetClientID: 600000001, FurtherClientIDs: []int64{600000002}},
		UserRoleSet{Role: RoleAdmin}, UserPlanSet{Plan: "pro"},
		ClientClaimed{ClientID: 600000002, UserID: 100000001},
		MappingMoved{SourceClientID: 600000002, TargetClientID: 600000001, SourceUserID: 100000002, TargetUserID: 100000003},
		KeyCreated{KeyID: 7, UserID: 100000001, Name: "ci", Prefix: "tnk_7_abcd", Hash: hash, Scopes: []Scope{ScopeRead, ScopeAdmin}, ExpiresAt: moment},
		KeyRevoked{},
		LoginBegun{LoginID: 7, UserID: 100000001, Password: 1, Family: hash, Hash: hash, ExpiresAt: moment},
		LoginRefreshed{Generation: 2, Hash: hash, ExpiresAt: moment}, LoginEnded{Reason: EndReuse},
		ShareCreated{ShareID: 7, UserID: 100000001, Name: "db", TargetClientID: 600000001, Protocol: ProtocolTCP, Service: Service{TargetHost: "db.internal", TargetPort: 5433, TargetLast: 5444, TargetScheme: "https", Target: "unix:/run/db.sock"},
			Options: allOptions, Hash: hash, MaxUses: 2, ExpiresAt: moment},
		ShareRedeemed{MappingID: 1001, ClientID: 600000000, Account: 100000002}, ShareRevoked{},
		InviteCreated{InviteID: 7, UserID: 100000001, Name: "laptops", Hash: hash, MaxUses: 2, ExpiresAt: moment},
		InviteRedeemed{ClientID: 600000001, PublicKey: hash}, InviteRevoked{},
		OwnDomainCreated{DomainID: 7, UserID: 100000001, Host: "shop.example.com", Token: "ABCDEFGHIJKLMNOPQRSTUVWXYZ"}, OwnDomainVerified{}, OwnDomainDeleted{},
		HostProved{Host: "shop.example.com", UserID: 100000001}, HostReleased{Host: "shop.example.com"},
		WebhookCreated{WebhookID: 7, UserID: 100000001, URL: "https://example.org/hook", Events: []string{"mapping_*"}, All: true, Description: "billing"},
		WebhookChanged{URL: "https://example.org/hook2", Events: []string{"user_created"}, All: true, Description: "accounts"},
		WebhookSecretRotated{Generation: 2}, WebhookDisabled{Reason: "it answered 410"}, WebhookEnabled{}, WebhookDeleted{},
	}
	byName := map[string]Event{}
	for _, e := range all {
		byName[e.EventName()] = e
	}
	return byName
}()

// allOptions has every option set. Its values are drawn from the tags, so that an
// example need not be written for a new one; the golden files hold them.
var allOptions = func() (o Options) {
	example(reflect.ValueOf(&o).Elem(), Field{})
	return o
}()

// example sets a value and everything in it to something that is not zero.
func example(v reflect.Value, field Field) {
	switch v.Kind() {
	case reflect.Struct:
		for _, field := range Fields(v.Interface()) {
			example(v.FieldByIndex(field.index), field)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		example(v.Index(0), Field{})
	case reflect.Map:
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		example(key, Field{})
		example(value, Field{})
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, value)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		example(v.Elem(), field)
	case reflect.String:
		if v.SetString("text"); len(field.Enum) > 0 {
			v.SetString(field.Enum[len(field.Enum)-1])
		}
	case reflect.Int, reflect.Int64:
		if v.SetInt(7); field.Minimum != nil {
			v.SetInt(*field.Minimum + 1)
		}
	case reflect.Bool:
		v.SetBool(true)
	default:
		panic("no example for a " + v.Kind().String())
	}
}

func TestExamplesAreFull(t *testing.T) {
	for name := range codecs {
		if published[name] == nil {
			t.Errorf("%s has no example", name)
		}
	}
	for name, e := range published {
		v := reflect.ValueOf(e)
		for _, field := range reflect.VisibleFields(v.Type()) {
			if !field.Anonymous && v.FieldByIndex(field.Index).IsZero() {
				t.Errorf("the example of %s leaves %s empty", name, field.Name)
			}
		}
	}
}

// TestPublishedShapes: what was once written can be read for ever. A golden file
// of an old schema is never written again; -update adds the files that miss.
func TestPublishedShapes(t *testing.T) {
	for name, c := range codecs {
		_, schema, data, err := Encode(published[name])
		if err != nil || schema != c.schema {
			t.Fatalf("encode %s: schema %d, %v", name, schema, err)
		}
		file := fmt.Sprintf("testdata/events/%s.v%d.json", name, schema)
		golden, err := os.ReadFile(file)
		if errors.Is(err, os.ErrNotExist) && *update {
			if err := os.WriteFile(file, append(data, '\n'), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s of schema %d has no golden file (add it with -update): %v", name, schema, err)
			continue
		}
		if want := strings.TrimSuffix(string(golden), "\n"); want != string(data) {
			t.Errorf("%s of schema %d changed its shape after it was published.\n  was: %s\n  is:  %s\n"+
				"Raise the schema in codec.go, add an upcast from %d and keep the golden file.", name, schema, want, data, schema)
		}
	}
}

// TestOldShapesAreRead decodes every golden file, of every schema there ever was.
func TestOldShapesAreRead(t *testing.T) {
	files, err := filepath.Glob("testdata/events/*.json")
	if err != nil || len(files) < len(codecs) {
		t.Fatalf("%d golden files for %d events: %v", len(files), len(codecs), err)
	}
	for _, file := range files {
		name, version, _ := strings.Cut(strings.TrimSuffix(filepath.Base(file), ".json"), ".v")
		var schema int
		if _, err := fmt.Sscan(version, &schema); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		e, err := Decode(name, schema, data)
		if err != nil {
			t.Errorf("%s can no longer be read: %v", file, err)
			continue
		}
		want := published[name]
		if schema < codecs[name].schema {
			want = onlyWith(t, want, data)
			if created, ok := want.(ClientCreated); ok && schema < 2 {
				created.Commands = CommandsAll // so it was before anybody could say otherwise
				want = created
			}
		}
		if !reflect.DeepEqual(e, want) {
			t.Errorf("%s reads as %+v, want %+v", file, e, want)
		}
	}
}

// onlyWith gives an event with those fields that old data has: what an old schema
// reads as, when later ones have added fields.
func onlyWith(t *testing.T, e Event, data []byte) Event {
	_, schema, now, err := Encode(e)
	var old, all map[string]any
	if err := errors.Join(err, json.Unmarshal(data, &old), json.Unmarshal(now, &all)); err != nil {
		t.Fatal(err)
	}
	prune(all, old)
	less, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	e, err = Decode(e.EventName(), schema, less)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// prune leaves in an object what another one has too, however deep.
func prune(all, old map[string]any) {
	maps.DeleteFunc(all, func(field string, _ any) bool { _, had := old[field]; return !had })
	for field, inner := range all {
		a, isObject := inner.(map[string]any)
		if o, both := old[field].(map[string]any); isObject && both {
			prune(a, o)
		}
	}
}

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.String()
		e := rapid.SampledFrom([]Event{
			UserCreated{UserID: rapid.Int64().Draw(t, "id"), Username: text.Draw(t, "name"), Email: text.Draw(t, "email")},
			ClientCreated{ClientID: rapid.Int64().Draw(t, "id"), Name: text.Draw(t, "name"), Description: text.Draw(t, "d"),
				PublicKey: rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(t, "key")},
			MappingChanged{Parts{Name: text.Draw(t, "name"), Origin: Origin{LocalHost: text.Draw(t, "host"), LocalPort: rapid.Int().Draw(t, "port")}}},
			QuotaSet{Account: rapid.Int64().Draw(t, "id"), Limits: drawLimits(t)},
		}).Draw(t, "event")
		name, schema, data, err := Encode(e)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Record{Name: name, Schema: schema, Data: data}.Event()
		if err != nil || !reflect.DeepEqual(got, e) {
			t.Fatalf("%+v came back as %+v, %v", e, got, err)
		}
	})
}

type strangeEvent struct{}

func (strangeEvent) EventName() string { return "strange" }

func TestUnknownEvents(t *testing.T) {
	if _, _, _, err := Encode(strangeEvent{}); CodeOf(err) != CodeUnknownEvent {
		t.Errorf("encode: %v", err)
	}
	for _, c := range []struct {
		name   string
		schema int
	}{{"strange", 1}, {"", 1}, {"UserCreated", 1}, {"user_created", 2}, {"user_created", 0}, {"user_created", -1}} {
		if e, err := Decode(c.name, c.schema, []byte(`{}`)); CodeOf(err) != CodeUnknownEvent {
			t.Errorf("decode %q schema %d: %v, %v", c.name, c.schema, e, err)
		}
	}
	r := Record{Stream: UserStream(1), Name: "strange", Schema: 1, Data: []byte(`{}`)}
	if err := Fold(&User{}, []Record{r}); CodeOf(err) != CodeUnknownEvent {
		t.Errorf("fold over an unknown event: %v", err)
	}
}

func TestBrokenData(t *testing.T) {
	for _, data := range []string{
		``, `null`, `[]`, `"x"`, `{`, `{"user_id":"1"}`, `{"user_id":1.5}`, `{"user_id":1e99}`,
		`{"later":1}`, `{} {}`, `{}x`, `{"user_id":1}}`,
	} {
		if e, err := Decode("user_created", 1, []byte(data)); err == nil {
			t.Errorf("decode %s: got %+v, want an error", data, e)
		} else if CodeOf(err) == CodeUnknownEvent {
			t.Errorf("decode %s: %v; broken data is not an unknown event", data, err)
		}
	}
}

// TestUpcast: old data goes through every step between its schema and today's.
func TestUpcast(t *testing.T) {
	saved := codecs[strangeShape{}.EventName()]
	defer func() {
		delete(codecs, strangeShape{}.EventName())
		if saved.decode != nil {
			codecs[strangeShape{}.EventName()] = saved
		}
	}()
	rename := func(from, to string) func(json.RawMessage) (json.RawMessage, error) {
		return func(raw json.RawMessage) (json.RawMessage, error) {
			var m map[string]json.RawMessage
			if err := json.Unmarshal(raw, &m); err != nil {
				return nil, err
			}
			m[to] = m[from]
			delete(m, from)
			return json.Marshal(m)
		}
	}
	register[strangeShape](3, rename("one", "two"), rename("two", "three"))
	for schema, data := range map[int]string{1: `{"one":"x"}`, 2: `{"two":"x"}`, 3: `{"three":"x"}`} {
		if e, err := Decode("strange_shape", schema, []byte(data)); err != nil || e != (strangeShape{Three: "x"}) {
			t.Errorf("schema %d: %+v, %v", schema, e, err)
		}
	}
	if _, err := Decode("strange_shape", 1, []byte(`[]`)); err == nil || !strings.Contains(err.Error(), "upcast strange_shape from schema 1") {
		t.Errorf("a failing upcast: %v", err)
	}
	if _, err := Decode("strange_shape", 4, []byte(`{}`)); CodeOf(err) != CodeUnknownEvent {
		t.Errorf("schema 4: %v", err)
	}
}

type strangeShape struct {
	Three string `json:"three"`
}

func (strangeShape) EventName() string { return "strange_shape" }

// TestApplyLeavesOthersAlone: an event of another aggregate changes nothing, not
// even the time of the last change. An erasure has the name of the user it is of.
func TestApplyLeavesOthersAlone(t *testing.T) {
	owner := func(name string) string { category, _, _ := strings.Cut(name, "_"); return category }
	for _, kind := range Kinds() {
		category := kind.Category
		for name, e := range published {
			a, before := NewAggregate(StreamID(category+"-1")), compact(NewAggregate(StreamID(category+"-1")))
			a.Apply(e, time.Unix(1, 0).UTC())
			if changed := compact(a) != before; changed && owner(name) != category && (name != "user_erased" || category != CategoryErasure) {
				t.Errorf("%s changes a %s: %s", name, category, compact(a))
			}
		}
	}
	if NewAggregate("session-1") != nil {
		t.Error("an aggregate for an unknown category")
	}
}

// FuzzDecode: no data panics, and what is read can be written and read again.
func FuzzDecode(f *testing.F) {
	for name, e := range published {
		_, schema, data, err := Encode(e)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(name, schema, data)
	}
	f.Add("user_created", 1, []byte(`null`))
	f.Add("quota_taken", 1, []byte(`{"resources":null,"ID":1}`))
	f.Fuzz(func(t *testing.T, name string, schema int, data []byte) {
		e, err := Decode(name, schema, data)
		if err != nil {
			return
		}
		for _, kind := range Kinds() {
			kind.New().Apply(e, time.Time{})
		}
		again, now, written, err := Encode(e)
		if err != nil || again != name {
			t.Fatalf("%s of %s cannot be written again as %s: %v", name, data, again, err)
		}
		back, err := Decode(again, now, written)
		if err != nil || !reflect.DeepEqual(back, e) {
			t.Fatalf("%+v came back as %+v: %v", e, back, err)
		}
	})
}
