package main

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/tunnox-net/tunnox/projections"
	"github.com/tunnox-net/tunnox/wholefile"
)

const redisUserLong = `Make the user of Redis that forwarders use, or give it a new password.

With --name each forwarder has a user of its own, so that one can be put out and the
others go on: --remove ends the user, with the connections that it has. Do so for a
node that was revoked.

--redis is the URL of a user that may change users of Redis (ACL SETUSER), for example
that of the control planes. --out is the file that gets the URL for forwarders; start
them with --redis-file. The user reads the configuration feed and the read models, and
writes the directory of clients and nodes. It cannot write to the feed or the read
models, nor read or change anything else of that Redis.

Run it again for a new password. Forwarders read the file again when they connect; the
connections that they have stay.`

// forwarderUser is the user of Redis that all forwarders of a cluster share; users of one
// forwarder each have a name behind it.
const forwarderUser = "tunnox-forwarder"

// redisUser says which user is made or removed.
type redisUser struct {
	name   string // of the forwarder; "" = the one that all share
	file   string // that gets the URL
	remove bool
}

var redisUserName = regexp.MustCompile(`^[a-z0-9-]{1,40}$`)

func (u redisUser) user() string {
	if u.name == "" {
		return forwarderUser
	}
	return forwarderUser + "-" + u.name
}

func (u redisUser) check(cfg *config) error {
	switch {
	case cfg.Redis == "" || (u.file == "") != u.remove:
		return usageError{errors.New("--redis and either --out or --remove are required")}
	case u.name != "" && !redisUserName.MatchString(u.name):
		return usageError{errors.New("--name must have 1 to 40 of a-z, 0-9 and -")}
	}
	return nil
}

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

// makeRedisUser makes, renews or removes a user of Redis for forwarders.
func makeRedisUser(ctx context.Context, cfg *config, u redisUser, out io.Writer, _ *slog.Logger) error {
	if err := u.check(cfg); err != nil {
		return err
	}
	at, err := url.Parse(cfg.Redis)
	if err != nil {
		return usageError{errors.New("--redis is not a URL")}
	}
	options, err := cfg.redisOptions()
	if err != nil {
		return err
	}
	client := redis.NewClient(options)
	defer client.Close()
	password := rand.Text()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if u.remove {
		return removeRedisUser(ctx, client, u.user(), out)
	}
	args := []any{"ACL", "SETUSER", u.user()}
	for _, rule := range forwarderRules(password) {
		args = append(args, rule)
	}
	if err := client.Do(ctx, args...).Err(); err != nil {
		return fmt.Errorf("make the user %s of Redis: %w", u.user(), err)
	}
	if err := saveRedisUsers(ctx, client); err != nil {
		return err
	}
	at.User = url.UserPassword(u.user(), password)
	if err := wholefile.Write(u.file, []byte(at.String()+"\n"), 0o600); err != nil {
		return fmt.Errorf("write the URL for forwarders: %w", err)
	}
	_, err = fmt.Fprintf(out, "the user %s of Redis has a new password; its URL is in %s\n", u.user(), u.file)
	return err
}

// removeRedisUser ends a user and its connections.
func removeRedisUser(ctx context.Context, client *redis.Client, user string, out io.Writer) error {
	n, err := client.Do(ctx, "ACL", "DELUSER", user).Int()
	if err != nil {
		return fmt.Errorf("remove the user %s of Redis: %w", user, err)
	}
	if n == 0 {
		return fmt.Errorf("remove the user %s of Redis: there is none", user)
	}
	if err := saveRedisUsers(ctx, client); err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "the user %s of Redis is no more, and its connections have ended\n", user)
	return err
}

// saveRedisUsers tells servers that load their users from a file to keep them.
func saveRedisUsers(ctx context.Context, client *redis.Client) error {
	if err := client.Do(ctx, "ACL", "SAVE").Err(); err != nil && !strings.Contains(err.Error(), "ACL file") {
		return fmt.Errorf("save the users of Redis: %w", err)
	}
	return nil
}

// redisOptions gives how Redis is reached: --redis, or the URL in --redis-file, whose user
// and password are read again for every connection, so that they can be replaced.
func (c *config) redisOptions() (*redis.Options, error) {
	if c.RedisFile == "" {
		options, err := redis.ParseURL(c.Redis)
		if err != nil {
			return nil, usageError{fmt.Errorf("--redis: %w", err)}
		}
		return options, c.redisAuthority(options)
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
	if err == nil {
		err = c.redisAuthority(options)
	}
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

// redisAuthority has the certificate of Redis verified by the authorities of --redis-ca.
func (c *config) redisAuthority(options *redis.Options) error {
	if c.RedisCA == "" {
		return nil
	}
	if options.TLSConfig == nil {
		return usageError{errors.New("--redis-ca is for Redis over TLS, whose URL begins with rediss://")}
	}
	text, err := os.ReadFile(c.RedisCA)
	if err != nil {
		return fmt.Errorf("--redis-ca: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return usageError{fmt.Errorf("--redis-ca %s contains no certificate", c.RedisCA)}
	}
	options.TLSConfig.RootCAs = pool
	return nil
}
