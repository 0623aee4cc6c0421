package main

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/projections"
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
