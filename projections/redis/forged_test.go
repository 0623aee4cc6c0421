package redis_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	goredis "github.com/redis/go-redis/v9"

	"github.com/tunnox-net/tunnox/attest"
	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/projections"
	"github.com/tunnox-net/tunnox/projections/projectionstest"
	"github.com/tunnox-net/tunnox/projections/redis"
	"github.com/tunnox-net/tunnox/test/services"
)

// attacked are read models of a log in a Redis that somebody else may write to too.
type attacked struct {
	*goredis.Client
	log   *projectionstest.Log
	store *redis.Store // a control plane's
	open  *redis.Store // a forwarder's
	rows  string       // prefix of the keys of the version that is read
}

func newAttacked(t *testing.T) *attacked {
	t.Helper()
	options, err := goredis.ParseURL(services.Redis(t))
	if err != nil {
		t.Fatal(err)
	}
	c := goredis.NewClient(options)
	k := key(t)
	a := &attacked{Client: c, log: projectionstest.NewLog(0), store: redis.New(c, k.Trust(), nil),
		open: redis.New(c, attest.Trust{Verifier: k.Verifier()}, nil)}
	t.Cleanup(func() {
		if err := errors.Join(a.store.Close(), a.open.Close(), c.Close()); err != nil {
			t.Error(err)
		}
	})
	h := projectionstest.NewHistory(a.log, projectionstest.Seeded(3))
	for range 400 {
		h.Step()
	}
	run(t, a.log, a.store)
	equal(t, a.log, a.store)
	a.rows = a.prefix(t)
	return a
}

func (a *attacked) prefix(t *testing.T) string {
	t.Helper()
	tag := fmt.Sprintf("{rm%d}:", projections.Schema)
	version, err := a.Get(t.Context(), tag+"active").Result()
	if err != nil {
		t.Fatal(err)
	}
	return tag + version + ":"
}

// two gives the ids of two mappings, and what Redis keeps of them.
func (a *attacked) two(t *testing.T) (ids, kept []string) {
	t.Helper()
	all, err := a.HGetAll(t.Context(), a.rows+"mapping").Result()
	if err != nil || len(all) < 2 {
		t.Fatalf("%d mappings, %v", len(all), err)
	}
	for id, value := range all {
		ids, kept = append(ids, id), append(kept, value)
	}
	return ids[:2], kept[:2]
}

// Rows and checkpoints that no control plane wrote are given to nobody, and a control
// plane has the read models be built anew.
func TestWhatOthersWriteIsNotRead(t *testing.T) {
	forgeries := map[string]func(t *testing.T, a *attacked, id string, ids, kept []string) error{
		"a row that was changed": func(t *testing.T, a *attacked, id string, _, kept []string) error {
			return a.HSet(t.Context(), a.rows+"mapping", id, strings.Replace(kept[0], `"target_port":`, `"target_port":1`, 1)).Err()
		},
		"plain JSON": func(t *testing.T, a *attacked, id string, _, _ []string) error {
			return a.HSet(t.Context(), a.rows+"mapping", id, `{"version":1,"position":1,"id":`+id+`}`).Err()
		},
		"the row of another mapping": func(t *testing.T, a *attacked, id string, _, kept []string) error {
			return a.HSet(t.Context(), a.rows+"mapping", id, kept[1]).Err()
		},
		"a checkpoint that was moved on": func(t *testing.T, a *attacked, _ string, _, _ []string) error {
			return a.HSet(t.Context(), a.rows+"meta", "position", "1000000").Err()
		},
	}
	for name, forge := range forgeries {
		t.Run(name, func(t *testing.T) {
			a := newAttacked(t)
			ids, kept := a.two(t)
			n, err := strconv.ParseInt(ids[0], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			if err := forge(t, a, ids[0], ids, kept); err != nil {
				t.Fatal(err)
			}
			for who, s := range map[string]*redis.Store{"a forwarder": a.open, "a control plane": a.store} {
				row, _, err := projections.NewReader(s).Mapping(t.Context(), n)
				if err == nil && strconv.FormatInt(row.ID, 10) != ids[0] || err != nil && !errors.Is(err, projections.ErrUnavailable) {
					t.Errorf("%s read %+v, %v", who, row.Mapping, err)
				}
			}
			equal(t, a.log, a.store)
			m, err := projectionstest.NewModel(a.log, a.log.Position())
			if err != nil {
				t.Fatal(err)
			}
			row, ok, err := projections.NewReader(a.open).Mapping(t.Context(), n)
			if err != nil || !ok || row.TargetPort != m.Mappings[n].TargetPort || row.Version != m.Mappings[n].Version {
				t.Errorf("afterwards a forwarder reads %+v, %v, %v", row.Mapping, ok, err)
			}
			if a.prefix(t) == a.rows {
				t.Error("the read models were not built anew")
			}
		})
	}
}

// A row counts in the lists that it names itself.
func TestAForgedListShowsNothingOfOthers(t *testing.T) {
	a := newAttacked(t)
	ctx := t.Context()
	users, _, err := projections.NewReader(a.store).Users(ctx, 0, 2)
	if err != nil || len(users) != 2 {
		t.Fatal(users, err)
	}
	mine := users[0].ID
	index := a.rows + "index:" + string(projections.ClientsOfUser(mine))
	all, _, err := projections.NewReader(a.store).Clients(ctx, projections.AllClients, 0, 1000)
	others := slices.DeleteFunc(all, func(c projections.ClientRow) bool { return c.UserID == mine })
	if err != nil || len(others) == 0 {
		t.Fatal(others, err)
	}
	if err := a.ZAdd(ctx, index, goredis.Z{Score: float64(others[0].ID), Member: others[0].ID}).Err(); err != nil {
		t.Fatal(err)
	}
	shown, _, err := projections.NewReader(a.store).Clients(ctx, projections.ClientsOfUser(mine), 0, 100)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range shown {
		if c.UserID != mine {
			t.Errorf("the list of user %d shows client %d of user %d", mine, c.ID, c.UserID)
		}
	}
}

// A forwarder reads what it needs, and writes nothing.
func TestAForwarderReadsWhatIsOpen(t *testing.T) {
	a := newAttacked(t)
	ctx := t.Context()
	whole, open := projections.NewReader(a.store), projections.NewReader(a.open)
	users, _, err := whole.Users(ctx, 0, 1)
	if err != nil || len(users) == 0 {
		t.Fatal(users, err)
	}
	row, ok, err := open.User(ctx, users[0].ID)
	if err != nil || !ok || row.Disabled != users[0].Disabled || row.Version != users[0].Version {
		t.Errorf("a user: %+v, %v, %v", row, ok, err)
	}
	if row.Username != "" || row.Email != "" || users[0].Username == "" || users[0].Email == "" {
		t.Errorf("a forwarder reads %q and %q, a control plane %q and %q", row.Username, row.Email, users[0].Username, users[0].Email)
	}
	keys, _, err := whole.Keys(ctx, projections.AllKeys, 0, 1)
	if err != nil || len(keys) == 0 {
		t.Fatal(keys, err)
	}
	if row, ok, err := open.Key(ctx, keys[0].ID); err == nil {
		t.Errorf("a forwarder reads a key: %+v, %v", row, ok)
	}
	at, err := a.open.Checkpoint(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.open.Apply(ctx, projections.Batch{From: at, To: projections.Checkpoint{Position: at.Position + 1, EventID: domain.EventID{1}}}); err == nil {
		t.Error("a forwarder wrote to the read models")
	}
}

// Nothing in Redis tells who a user is.
func TestRedisHoldsNoNamesAddressesOrHashes(t *testing.T) {
	a := newAttacked(t)
	ctx := t.Context()
	m, err := projectionstest.NewModel(a.log, a.log.Position())
	if err != nil {
		t.Fatal(err)
	}
	personal := map[string]bool{"$hash": true}
	for _, u := range m.Users {
		personal[u.Username], personal[u.Email] = true, true
	}
	for _, c := range m.Clients {
		if c.Name != "client" && c.Name != "claimed" && len(c.Name) > 3 { // which are words of ours too
			personal[c.Name] = true
		}
	}
	for _, k := range m.Keys {
		if len(k.Name) > 3 {
			personal[k.Name] = true
		}
	}
	all := everything(ctx, t, a.Client)
	for value := range personal {
		if strings.Contains(all, value) {
			t.Errorf("Redis holds %q", value)
		}
	}
	if len(personal) < 10 {
		t.Errorf("%d values looked for", len(personal))
	}
}

// everything gives all keys and values of a database as one text.
func everything(ctx context.Context, t *testing.T, c *goredis.Client) string {
	t.Helper()
	keys, err := c.Keys(ctx, "*").Result()
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, key := range keys {
		dump, err := c.Dump(ctx, key).Result() // compressed, so it tells that the key is there only
		if err != nil || dump == "" {
			t.Fatalf("dump %s: %v", key, err)
		}
		all.WriteString(key + "\n")
		switch c.Type(ctx, key).Val() {
		case "hash":
			for field, value := range c.HGetAll(ctx, key).Val() {
				all.WriteString(field + " " + value + "\n")
			}
		case "zset":
			all.WriteString(strings.Join(c.ZRange(ctx, key, 0, -1).Val(), "\n"))
		case "string":
			all.WriteString(c.Get(ctx, key).Val() + "\n")
		default:
			t.Fatalf("%s is a %s", key, c.Type(ctx, key).Val())
		}
	}
	return all.String()
}

// A forwarder may not write, so that it only says that rows are gone. A control plane
// has them be built anew.
func TestAForwarderLeavesRepairsToControlPlanes(t *testing.T) {
	a := newAttacked(t)
	ids, _ := a.two(t)
	n, err := strconv.ParseInt(ids[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Del(t.Context(), a.rows+"mapping").Err(); err != nil {
		t.Fatal(err)
	}
	if row, ok, err := projections.NewReader(a.open).Mapping(t.Context(), n); !errors.Is(err, projections.ErrUnavailable) {
		t.Errorf("a forwarder reads %+v, %v, %v", row.Mapping, ok, err)
	}
	if left := a.Exists(t.Context(), a.rows+"meta").Val(); left != 1 {
		t.Error("a forwarder has dropped the read models")
	}
	if _, _, err := projections.NewReader(a.store).Mapping(t.Context(), n); !errors.Is(err, projections.ErrUnavailable) {
		t.Errorf("a control plane reads without them: %v", err)
	}
	equal(t, a.log, a.store)
}
