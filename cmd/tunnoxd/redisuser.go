package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/tunnox-net/tunnox/projections"
)

const redisUserLong = `Make the user of Redis that forwarders use, or give it a new password.

--redis is the URL of a user that may change users of Redis (ACL SETUSER), for example
that of the control planes. --out is the file that gets the URL for forwarders; start
them with --redis-file. The user reads the configuration feed and the read models, and
writes the directory of clients and nodes. It cannot write to the feed or the read
models, nor read or change anything else of that Redis.

Run it again for a new password. Forwarders read the file again when they connect; the
connections that they have stay.`

// forwarderUser is the user of Redis that all forwarders of a cluster share.
const forwarderUser = "tunnox-forwarder"

// forwarderRules are what that user may do. Keys beside these patterns cannot even be read.
func forwarderRules(password string) []string {
	return []string{"reset", "on", ">" + password,
		// What control planes write.
		"%R~tunnox:feed", "%R~{tunnox:feed}:epochs", fmt.Sprintf("%%R~{rm%d}*", projections.Schema),
		"%R~tunnox:view:*", "%R~tunnox:views", "%R~" + signersKey,
		// The directory: sessions of clients, leases of nodes, portions of limits.
		"~tunnox:client:*", "~{tunnox:nodes}:*", "&tunnox:node:*", "~" + probeKey,
		"-@all", "+@connection", "+@read", "+@hash", "+@list", "+@string", "+@pubsub", "+@transaction",
		"+eval", "+evalsha", "+eval_ro", "+evalsha_ro", "+script|load", "+script|exists",
		"+time", "+info", "+del", "+unlink", "+expire", "+pexpire", "-keys", "-scan", "-randomkey", "-dump"}
}

// makeRedisUser makes or renews the forwarders' user of Redis.
func makeRedisUser(ctx context.Context, cfg *config, file string, out io.Writer, _ *slog.Logger) error {
	if cfg.Redis == "" || file == "" {
		return usageError{errors.New("--redis and --out are required")}
	}
	at, err := url.Parse(cfg.Redis)
	if err != nil {
		return usageError{errors.New("--redis is not a URL")}
	}
	options, err := redis.ParseURL(cfg.Redis)
	if err != nil {
		return usageError{fmt.Errorf("--redis: %w", err)}
	}
	client := redis.NewClient(options)
	defer client.Close()
	password := rand.Text()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	args := []any{"ACL", "SETUSER", forwarderUser}
	for _, rule := range forwarderRules(password) {
		args = append(args, rule)
	}
	if err := client.Do(ctx, args...).Err(); err != nil {
		return fmt.Errorf("make the user %s of Redis: %w", forwarderUser, err)
	}
	// Servers that load their users from a file keep them only when they are told to.
	if err := client.Do(ctx, "ACL", "SAVE").Err(); err != nil && !strings.Contains(err.Error(), "ACL file") {
		return fmt.Errorf("save the users of Redis: %w", err)
	}
	at.User = url.UserPassword(forwarderUser, password)
	if err := replaceFile(file, []byte(at.String()+"\n"), 0o600); err != nil {
		return fmt.Errorf("write the URL for forwarders: %w", err)
	}
	_, err = fmt.Fprintf(out, "the user %s of Redis has a new password; its URL is in %s\n", forwarderUser, file)
	return err
}

// redisOptions gives how Redis is reached: --redis, or the URL in --redis-file, whose user
// and password are read again for every connection, so that they can be replaced.
func (c *config) redisOptions() (*redis.Options, error) {
	if c.RedisFile == "" {
		options, err := redis.ParseURL(c.Redis)
		if err != nil {
			return nil, usageError{fmt.Errorf("--redis: %w", err)}
		}
		return options, nil
	}
	read := func() (*redis.Options, error) {
		text, err := os.ReadFile(c.RedisFile)
		if err != nil {
			return nil, fmt.Errorf("--redis-file: %w", err)
		}
		options, err := redis.ParseURL(strings.TrimSpace(string(text)))
		if err != nil {
			return nil, usageError{fmt.Errorf("--redis-file %s holds no URL of Redis", c.RedisFile)}
		}
		return options, nil
	}
	options, err := read()
	if err != nil {
		return nil, err
	}
	options.CredentialsProviderContext = func(context.Context) (string, string, error) {
		now, err := read()
		if err != nil {
			return "", "", err
		}
		return now.Username, now.Password, nil
	}
	return options, nil
}
