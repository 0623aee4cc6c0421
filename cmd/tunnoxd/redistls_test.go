package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/tunnox-net/tunnox/control"
	"github.com/tunnox-net/tunnox/test/programs"
	"github.com/tunnox-net/tunnox/test/services"
)

// secureRedis is a Redis with a password, over TLS with a certificate of an authority of
// its own. It gives the URL over TLS and the file of the authority.
func secureRedis(t *testing.T) (url, ca string) {
	t.Helper()
	authority, err := control.OpenAuthority(t.Context(), control.NewFileVault(t.TempDir()), control.AuthorityOptions{})
	if err != nil {
		t.Fatal(err)
	}
	issued, err := authority.IssueAgents("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	// The server may run as another account, which reads these files.
	dir, err := os.MkdirTemp("", "tunnox-redis-tls-")
	if err == nil {
		t.Cleanup(func() { _ = os.RemoveAll(dir) })
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, der []byte) string {
		file := filepath.Join(dir, name)
		err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
		if err := errors.Join(err, os.Chmod(file, 0o644)); err != nil {
			t.Fatal(err)
		}
		return file
	}
	key, err := x509.MarshalPKCS8PrivateKey(issued.Certificate.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	port := programs.FreePort(t)
	ca = write("ca.pem", "CERTIFICATE", authority.Certificate().Raw)
	server := services.StartRedis(t, "--tls-port", fmt.Sprint(port), "--tls-auth-clients", "no", "--tls-ca-cert-file", ca,
		"--tls-cert-file", write("redis.pem", "CERTIFICATE", issued.Certificate.Leaf.Raw), "--tls-key-file", write("redis-key.pem", "PRIVATE KEY", key))
	plain := goredis.NewClient(&goredis.Options{Addr: server.Addr()})
	defer plain.Close()
	if err := plain.ConfigSet(t.Context(), "requirepass", "a-password").Err(); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("rediss://:a-password@127.0.0.1:%d/0", port), ca
}

// TestRedisOverTLS: a cluster works over TLS and passwords, each forwarder with a user of
// its own. A user that is removed is out at once, and the other forwarder goes on. A
// Redis whose certificate nobody vouches for is not spoken to.
func TestRedisOverTLS(t *testing.T) {
	url, ca := secureRedis(t)
	dir := t.TempDir()
	postgres := services.Postgres(t)
	c, err := startControl(t, dir, []string{"TUNNOX_REDIS_CA=" + ca}, postgres, url)
	if err != nil {
		t.Fatal(err)
	}
	user := func(args ...string) error {
		var out bytes.Buffer
		err := run(t.Context(), append([]string{"redis-user", "--redis", url, "--redis-ca", ca}, args...), nil, &out, &out)
		if err != nil {
			err = fmt.Errorf("%w: %s", err, &out)
		}
		return err
	}
	files := map[string]string{}
	var forwarders []*running
	for _, name := range []string{"fra1", "fra2"} {
		files[name] = filepath.Join(t.TempDir(), name)
		if err := user("--name", name, "--out", files[name]); err != nil {
			t.Fatal(err)
		}
		f, err := start(t, t.TempDir(), "forwarder", "--listen", "127.0.0.1:0", "--bridge", "127.0.0.1:0", "--metrics", "127.0.0.1:0",
			"--redis-file", files[name], "--redis-ca", ca, "--control", c.addresses["state"], "--join-token-file", filepath.Join(dir, "join-token"))
		if err != nil {
			t.Fatal(err)
		}
		forwarders = append(forwarders, f)
	}
	text, err := os.ReadFile(files["fra1"])
	if err != nil {
		t.Fatal(err)
	}
	options, err := (&config{Redis: strings.TrimSpace(string(text)), RedisCA: ca}).redisOptions()
	if err != nil {
		t.Fatal(err)
	}
	if options.Username != "tunnox-forwarder-fra1" {
		t.Errorf("the user is %q", options.Username)
	}
	thief := goredis.NewClient(options)
	defer thief.Close()
	if err := thief.Ping(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}

	if err := user("--name", "fra1", "--remove"); err != nil {
		t.Fatal(err)
	}
	if err := thief.Ping(context.Background()).Err(); err == nil {
		t.Error("a user that was removed is answered")
	}
	if err := user("--name", "fra1", "--remove"); err == nil {
		t.Error("removed again")
	}
	key := apiKeyIn(t, dir)
	server, pin := forwarders[1].said(t)
	id := int64(c.created(t, key, "/api/v1/users", `{"username":"ann","email":"ann@example.org"}`)["user_id"].(float64))
	joined(t, server, pin, c.created(t, key, "/api/v1/clients", fmt.Sprintf(`{"user_id":%d,"client_name":"desk"}`, id)))
	programs.Eventually(t, 20*time.Second, func() error {
		status, body, _ := c.call(t, key, "GET", "/api/v1/clients?status=online", "")
		if status != 200 || !strings.Contains(body, "desk") {
			return fmt.Errorf("%d %s", status, body)
		}
		return nil
	})

	if err := user("--name", "../x", "--out", files["fra2"]); !errors.As(err, new(usageError)) {
		t.Errorf("a name that is none: %v", err)
	}
	_, other := secureRedis(t)
	var out bytes.Buffer
	if err := run(t.Context(), []string{"redis-user", "--redis", url, "--redis-ca", other, "--out", files["fra2"]}, nil, &out, &out); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a Redis that another authority vouches for: %v", err)
	}
	if err := run(t.Context(), []string{"redis-user", "--redis", url, "--out", files["fra2"]}, nil, &out, &out); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a Redis that nobody vouches for: %v", err)
	}
}
