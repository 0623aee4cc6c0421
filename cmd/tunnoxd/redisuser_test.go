package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/tunnox-net/tunnox/test/programs"
	"github.com/tunnox-net/tunnox/test/services"
)

// The user of Redis that forwarders have carries a cluster, and changes nothing that
// control planes write.
func TestForwardersHaveAUserOfRedisOfTheirOwn(t *testing.T) {
	postgres, redis := services.Postgres(t), services.Redis(t)
	dir, file := t.TempDir(), filepath.Join(t.TempDir(), "redis-url")
	c, err := startControl(t, dir, nil, postgres, redis)
	if err != nil {
		t.Fatal(err)
	}
	renew := func() string {
		t.Helper()
		var out bytes.Buffer
		if err := run(t.Context(), []string{"redis-user", "--redis", redis, "--out", file}, nil, &out, &out); err != nil {
			t.Fatalf("%v\n%s", err, &out)
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("the file is %v, %v", info.Mode(), err)
		}
		if secret := strings.TrimSpace(string(text)); strings.Contains(out.String(), secret) {
			t.Errorf("the password is printed: %s", &out)
		}
		return strings.TrimSpace(string(text))
	}
	first := renew()
	f, err := start(t, t.TempDir(), "forwarder", "--listen", "127.0.0.1:0", "--bridge", "127.0.0.1:0", "--metrics", "127.0.0.1:0",
		"--redis-file", file, "--control", c.addresses["state"], "--join-token-file", filepath.Join(dir, "join-token"))
	if err != nil {
		t.Fatal(err)
	}
	key := apiKeyIn(t, dir)
	server, pin := f.said(t)
	user := int64(c.created(t, key, "/api/v1/users", `{"username":"ann","email":"ann@example.org"}`)["user_id"].(float64))
	client := func(name string) int64 {
		made := c.created(t, key, "/api/v1/clients", fmt.Sprintf(`{"user_id":%d,"client_name":%q}`, user, name))
		joined(t, server, pin, made)
		return int64(made["client_id"].(float64))
	}
	source, target := client("source"), client("target")
	service, port := programs.Listen(t, programs.Echo).Port, programs.FreePort(t)
	c.created(t, key, "/api/v1/mappings", fmt.Sprintf(`{"user_id":%d,"protocol":"tcp","source_client_id":%d,"target_client_id":%d,"local_port":%d,"target_host":"127.0.0.1","target_port":%d}`,
		user, source, target, port, service))
	serves := func() error {
		answer, err := programs.Ask(port, []byte("hello"))
		if err == nil && string(answer) != "hello" {
			err = fmt.Errorf("it answers %q", answer)
		}
		return err
	}
	programs.Eventually(t, 20*time.Second, serves)
	for _, refused := range []string{"NOPERM", "denied"} {
		if strings.Contains(f.stderr.String(), refused) {
			t.Errorf("the forwarder was refused something: %s", f.stderr)
		}
	}

	// What the user may not do, whoever has its password.
	options, err := goredis.ParseURL(first)
	if err != nil {
		t.Fatal(err)
	}
	thief := goredis.NewClient(options)
	defer thief.Close()
	ctx := t.Context()
	i := intrude(t, redis)
	for what, try := range map[string]func() error{
		"a row":           func() error { return thief.HSet(ctx, i.rows+"mapping", "1", "x").Err() },
		"the checkpoint":  func() error { return thief.Del(ctx, i.rows+"meta").Err() },
		"the read models": func() error { return thief.Unlink(ctx, i.rows+"mapping").Err() },
		"by a script": func() error {
			return thief.Eval(ctx, "return redis.call('DEL', KEYS[1])", []string{i.rows + "meta"}).Err()
		},
		"a key not named": func() error { return thief.Eval(ctx, "return redis.call('DEL', '"+i.rows+"meta')", nil).Err() },
		"the feed": func() error {
			return thief.XAdd(ctx, &goredis.XAddArgs{Stream: "tunnox:feed", Values: []string{"a", "b"}}).Err()
		},
		"all of the feed":     func() error { return thief.Del(ctx, "tunnox:feed").Err() },
		"a view":              func() error { return thief.Set(ctx, "tunnox:view:1", "x", time.Minute).Err() },
		"who signs":           func() error { return thief.HSet(ctx, signersKey, "00", "x").Err() },
		"everything":          func() error { return thief.FlushDB(ctx).Err() },
		"other keys":          func() error { return thief.Get(ctx, "something:else").Err() },
		"what keys there are": func() error { return thief.Keys(ctx, "*").Err() },
		"other users":         func() error { return thief.Do(ctx, "ACL", "SETUSER", "x", "on").Err() },
		"settings":            func() error { return thief.ConfigGet(ctx, "*").Err() },
	} {
		if err := try(); err == nil || errors.Is(err, goredis.Nil) || !strings.Contains(err.Error(), "NOPERM") && !strings.Contains(err.Error(), "ermission") && !strings.Contains(err.Error(), "can't access") {
			t.Errorf("%s: %v", what, err)
		}
	}

	// A new password: the old one lets nobody in, and the forwarder goes on.
	if renew() == first {
		t.Error("the password is the same")
	}
	fresh := goredis.NewClient(options)
	defer fresh.Close()
	if err := fresh.Ping(ctx).Err(); err == nil {
		t.Error("the old password lets in still")
	}
	if n, err := i.ClientKillByFilter(context.Background(), "USER", forwarderUser).Result(); err != nil || n == 0 {
		t.Errorf("%d connections ended: %v", n, err)
	}
	programs.Eventually(t, 20*time.Second, serves)
	programs.Eventually(t, 20*time.Second, func() error {
		if _, err := i.Do(context.Background(), "CLIENT", "LIST").Text(); err != nil {
			return err
		}
		list, err := i.Do(context.Background(), "CLIENT", "LIST").Text()
		if err == nil && !strings.Contains(list, "user="+forwarderUser) {
			err = errors.New("the forwarder has not come back")
		}
		return err
	})
}
