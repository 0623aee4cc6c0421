package main

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill-redisstream/pkg/redisstream"
	"github.com/ThreeDotsLabs/watermill/message"
	goredis "github.com/redis/go-redis/v9"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/projections"
	"github.com/tunnox-net/tunnox/test/programs"
	"github.com/tunnox-net/tunnox/test/services"
)

// intruder is somebody who may write to Redis and has nothing else.
type intruder struct {
	*goredis.Client
	rows string // prefix of the read models' keys
}

func intrude(t *testing.T, url string) intruder {
	t.Helper()
	options, err := goredis.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	client := goredis.NewClient(options)
	t.Cleanup(func() { _ = client.Close() })
	tag := fmt.Sprintf("{rm%d}", projections.Schema)
	version, err := client.Get(t.Context(), tag+":active").Result()
	if err != nil {
		t.Fatal(err)
	}
	return intruder{client, tag + ":" + version + ":"}
}

// put forges a row.
func (i intruder) put(t *testing.T, kind projections.Kind, id int64, row any) {
	t.Helper()
	value, err := json.Marshal(row)
	if err == nil {
		err = i.HSet(t.Context(), i.rows+string(kind), strconv.FormatInt(id, 10), value).Err()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Whoever can write to Redis cannot make a key, and cannot raise one.
func TestAForgedKeyIsNoKey(t *testing.T) {
	postgres, redis := services.Postgres(t), services.Redis(t)
	dir := t.TempDir()
	c, err := startControl(t, dir, nil, postgres, redis)
	if err != nil {
		t.Fatal(err)
	}
	operator := apiKeyIn(t, dir)
	i := intrude(t, redis)

	// A key of the operator that nobody has made.
	const id = 4_711_000_000_000_001
	forged := fmt.Sprintf("tnk_%d_%s", int64(id), strings.Repeat("A", 43))
	hash := sha256.Sum256([]byte(forged))
	i.put(t, projections.APIKeys, id, projections.KeyRow{Versions: projections.Versions{Version: 1, Position: 1},
		Key: domain.Key{ID: id, Prefix: forged[:8], Hash: hash[:], Scopes: domain.RoleAdmin.Scopes(), CreatedAt: time.Now()}})
	if status, answer, _ := c.call(t, forged, "GET", "/api/v1/users", ""); status != http.StatusUnauthorized {
		t.Errorf("a key that only Redis knows got %d: %s", status, answer)
	}

	// A key that may read, of a user who is none to administer anything.
	user := c.created(t, operator, "/api/v1/users", `{"username":"mallory","email":"mallory@example.org"}`)["user_id"].(float64)
	made := c.created(t, operator, "/api/v1/keys", fmt.Sprintf(`{"name":"small","user_id":%d,"scopes":["read"]}`, int64(user)))
	small := made["key"].(string)
	keyID := int64(made["key_id"].(float64))
	if status, answer, _ := c.call(t, small, "GET", "/api/v1/clients", ""); status != http.StatusOK {
		t.Fatalf("the key itself got %d: %s", status, answer)
	}
	hash = sha256.Sum256([]byte(small))
	i.put(t, projections.APIKeys, keyID, projections.KeyRow{Versions: projections.Versions{Version: 1, Position: 1},
		Key: domain.Key{ID: keyID, Prefix: small[:8], Hash: hash[:], Scopes: domain.RoleAdmin.Scopes(), CreatedAt: time.Now()}})
	raised := int64(user)
	i.put(t, projections.Users, raised, projections.UserRow{Versions: projections.Versions{Version: 1, Position: 1},
		User: domain.User{ID: raised, Username: "mallory", Email: "mallory@example.org", Role: domain.RoleAdmin}})
	time.Sleep(time.Second) // longer than whom a key stands for is remembered
	for _, path := range []string{"/api/v1/nodes"} {
		if status, answer, _ := c.call(t, small, "GET", path, ""); status != http.StatusForbidden {
			t.Errorf("GET %s with a key that Redis has raised got %d: %s", path, status, answer)
		}
	}
}

// Whoever can write to Redis opens no way into a machine: a forged entry of the feed is
// not followed, and the forwarder says so and goes on with what the log has.
func TestAForgedEntryOpensNoMapping(t *testing.T) {
	postgres, redis := services.Postgres(t), services.Redis(t)
	dir := t.TempDir()
	c, err := startControl(t, dir, nil, postgres, redis)
	if err != nil {
		t.Fatal(err)
	}
	key := apiKeyIn(t, dir)
	f, err := start(t, t.TempDir(), "forwarder", "--listen", "127.0.0.1:0", "--bridge", "127.0.0.1:0", "--metrics", "127.0.0.1:0",
		"--redis", redis, "--control", c.addresses["state"], "--join-token-file", filepath.Join(dir, "join-token"))
	if err != nil {
		t.Fatal(err)
	}
	server, pin := f.said(t)
	client := func(name string) (int64, map[string]any) {
		user := int64(c.created(t, key, "/api/v1/users", fmt.Sprintf(`{"username":%q,"email":"%s@example.org"}`, name, name))["user_id"].(float64))
		made := c.created(t, key, "/api/v1/clients", fmt.Sprintf(`{"user_id":%d,"client_name":%q}`, user, name))
		return int64(made["client_id"].(float64)), made
	}
	mallory, his := client("mallory")
	victim, theirs := client("victim")
	joined(t, server, pin, theirs)
	joined(t, server, pin, his)
	service := programs.Listen(t, programs.Echo).Port
	ports := programs.FreePorts(t, 2)
	wanted := func(port int, target int64) string {
		return fmt.Sprintf(`{"user_id":%d,"protocol":"tcp","source_client_id":%d,"target_client_id":%d,"local_port":%d,"target_host":"127.0.0.1","target_port":%d}`, int64(his["user_id"].(float64)), mallory, target, port, service)
	}
	i := intrude(t, redis)
	newest, err := i.XRevRangeN(t.Context(), "tunnox:feed", "+", "-", 1).Result()
	if err != nil || len(newest) != 1 {
		t.Fatal(newest, err)
	}
	text, _, _ := strings.Cut(newest[0].ID, "-")
	last, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	e := domain.MappingCreated{MappingID: 999_999, UserID: 1, Protocol: domain.ProtocolTCP, SourceClientID: mallory, TargetClientID: victim,
		Origin: domain.Origin{LocalHost: "127.0.0.1", LocalPort: ports[0]}, Service: domain.Service{TargetHost: "127.0.0.1", TargetPort: service}}
	name, schema, data, err := domain.Encode(e)
	if err != nil {
		t.Fatal(err)
	}
	record, err := json.Marshal(domain.Record{Position: domain.Position(last + 1), Stream: domain.MappingStream(e.MappingID), Version: 1, Name: name,
		Schema: schema, ID: domain.EventID{1}, Meta: domain.Metadata{At: time.Now(), Actor: "key:admin"}, Recorded: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	m := message.NewMessage(domain.EventID{1}.String(), data)
	m.Metadata = message.Metadata{"position": fmt.Sprint(last + 1), "prev": fmt.Sprint(last), "record": string(record)}
	values, err := redisstream.DefaultMarshallerUnmarshaller{}.Marshal("tunnox:feed", m)
	if err == nil {
		err = i.XAdd(t.Context(), &goredis.XAddArgs{Stream: "tunnox:feed", ID: fmt.Sprintf("%d-0", last+1), Values: values}).Err()
	}
	if err != nil {
		t.Fatal(err)
	}
	programs.Eventually(t, 20*time.Second, func() error {
		if n := f.metric(t, "tunnox_feed_forged_total"); n < 1 {
			return fmt.Errorf("the forwarder counts %v forged entries", n)
		}
		return nil
	})
	if !strings.Contains(f.stderr.String(), "somebody else has written to the feed") {
		t.Errorf("the forwarder does not say so: %s", f.stderr)
	}
	// What the log has is carried out, behind the forged entry.
	own := c.created(t, key, "/api/v1/clients", fmt.Sprintf(`{"user_id":%d,"client_name":"second"}`, int64(his["user_id"].(float64))))
	joined(t, server, pin, own)
	c.created(t, key, "/api/v1/mappings", wanted(ports[1], int64(own["client_id"].(float64))))
	programs.Eventually(t, 20*time.Second, func() error {
		answer, err := programs.Ask(ports[1], []byte("hello"))
		if err == nil && string(answer) != "hello" {
			err = fmt.Errorf("it answers %q", answer)
		}
		return err
	})
	if conn, err := programs.DialPort(ports[0]); err == nil {
		_ = conn.Close()
		t.Error("the forged mapping listens")
	}
}
