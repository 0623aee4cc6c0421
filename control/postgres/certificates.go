package postgres

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	mathrand "math/rand/v2"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tunnox-net/tunnox/control/postgres/internal/queries"
	"github.com/tunnox-net/tunnox/primary"
	"github.com/tunnox-net/tunnox/wait"
)

var (
	_ certmagic.Storage   = (*Certificates)(nil)
	_ certmagic.TryLocker = (*Certificates)(nil)
)

const (
	// certificatePool is separate from the pool of leases: many visitors may ask for
	// certificates at once.
	certificatePool = 4
	// lockLife is how long the lock of a control plane that has died is in the way of
	// others, by the clock of the database.
	lockLife = 20 * time.Second
	// lockEvery is about the time between two attempts to get a lock.
	lockEvery = 300 * time.Millisecond
)

// Certificates stores what certmagic keeps: certificates, their keys, and the account
// at the authority. The values are encrypted as the secrets of a [Vault] are.
type Certificates struct {
	pool *pgxpool.Pool
	q    *queries.Queries
	keys [][]byte // the first encrypts, any decrypts
	log  *slog.Logger

	mu    sync.Mutex
	locks map[string]*heldLock // by name; guarded by mu
}

// heldLock is a lock that this process has.
type heldLock struct {
	holder string
	stop   context.CancelFunc // of the prolonging
	done   chan struct{}      // closed when the prolonging has ended
}

// OpenCertificates connects to the database of the log. key and before are as in
// [Cluster.Vault]. Values that an earlier key encrypted are encrypted with key, and
// values that no key opens are deleted: they can be got again, and nobody can read
// them.
func OpenCertificates(ctx context.Context, url string, log *slog.Logger, key []byte, before ...[]byte) (*Certificates, error) {
	config, err := primary.Config(url)
	if err != nil {
		return nil, fmt.Errorf("open the database of certificates: %w", err)
	}
	for name, value := range sessionSettings {
		config.ConnConfig.RuntimeParams[name] = value
	}
	config.MaxConns = certificatePool
	pool, err := primary.Open(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("open the database of certificates: %w", err)
	}
	c := &Certificates{pool: pool, q: queries.New(pool), keys: append([][]byte{key}, before...), log: log, locks: map[string]*heldLock{}}
	if err := c.sealAgain(ctx); err != nil {
		pool.Close()
		return nil, err
	}
	return c, nil
}

// Close gives back all locks and ends the connections.
func (c *Certificates) Close() {
	c.mu.Lock()
	names := make([]string, 0, len(c.locks))
	for name := range c.locks {
		names = append(names, name)
	}
	c.mu.Unlock()
	for _, name := range names {
		ctx, cancel := context.WithTimeout(context.Background(), endLimit)
		if err := c.Unlock(ctx, name); err != nil {
			c.log.Warn("cannot give back the lock of a certificate; it will expire", "lock", name, "error", err)
		}
		cancel()
	}
	c.pool.Close()
}

// sealedAs is what the encryption of a value is bound to, so that a row cannot be put
// in the place of another one.
func sealedAs(key string) string { return "certificate " + key }

// sealAgain brings all values to the present key.
func (c *Certificates) sealAgain(ctx context.Context) error {
	rows, err := c.q.SealedCertificates(ctx)
	if err != nil {
		return fmt.Errorf("read the stored certificates: %w", err)
	}
	for _, row := range rows {
		value, at := c.open(row.Key, row.Sealed)
		switch {
		case at == 0:
			continue
		case at < 0:
			c.log.Warn("a stored certificate was encrypted with an unknown key, and is deleted; another one will be ordered", "key", row.Key)
			err = c.q.DropSealedCertificate(ctx, queries.DropSealedCertificateParams(row))
		default:
			var next []byte
			if next, err = seal(c.keys[0], sealedAs(row.Key), value); err == nil {
				err = c.q.SealCertificateAgain(ctx, queries.SealCertificateAgainParams{Key: row.Key, Old: row.Sealed, Next: next})
			}
		}
		if err != nil {
			return fmt.Errorf("encrypt the stored certificate %s again: %w", row.Key, err)
		}
	}
	return nil
}

// open decrypts a value and gives the index of its key, -1 if there is none.
func (c *Certificates) open(key string, sealed []byte) (value []byte, at int) {
	for i, k := range c.keys {
		if value, ok := open(k, sealedAs(key), sealed); ok {
			return value, i
		}
	}
	return nil, -1
}

// Store implements [certmagic.Storage].
func (c *Certificates) Store(ctx context.Context, key string, value []byte) error {
	sealed, err := seal(c.keys[0], sealedAs(key), value)
	if err == nil {
		err = c.q.StoreCertificate(ctx, queries.StoreCertificateParams{Key: key, Sealed: sealed})
	}
	if err != nil {
		return fmt.Errorf("store %s: %w", key, err)
	}
	return nil
}

// Load implements [certmagic.Storage].
func (c *Certificates) Load(ctx context.Context, key string) ([]byte, error) {
	sealed, err := c.q.Certificate(ctx, key)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, absent("load", key)
	}
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", key, err)
	}
	value, at := c.open(key, sealed)
	if at < 0 {
		return nil, fmt.Errorf("load %s: %w", key, ErrSealed)
	}
	return value, nil
}

func absent(operation, key string) error {
	return &fs.PathError{Op: operation, Path: key, Err: fs.ErrNotExist}
}

// Delete implements [certmagic.Storage].
func (c *Certificates) Delete(ctx context.Context, key string) error {
	if err := c.q.DeleteCertificate(ctx, key); err != nil {
		return fmt.Errorf("delete %s: %w", key, err)
	}
	return nil
}

// Exists implements [certmagic.Storage].
func (c *Certificates) Exists(ctx context.Context, key string) bool {
	there, err := c.q.CertificateExists(ctx, key)
	return err == nil && there
}

// List implements [certmagic.Storage].
func (c *Certificates) List(ctx context.Context, prefix string, recursive bool) ([]string, error) {
	below := strings.TrimSuffix(prefix, "/") + "/"
	if prefix == "" {
		below = ""
	}
	keys, err := c.q.CertificateKeys(ctx, below)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", prefix, err)
	}
	if len(keys) == 0 {
		return nil, absent("list", prefix)
	}
	if recursive {
		return keys, nil
	}
	for i, key := range keys {
		name, _, _ := strings.Cut(strings.TrimPrefix(key, below), "/")
		keys[i] = path.Join(prefix, name)
	}
	return slices.Compact(keys), nil
}

// Stat implements [certmagic.Storage]. The size is that of the encrypted value.
func (c *Certificates) Stat(ctx context.Context, key string) (certmagic.KeyInfo, error) {
	row, err := c.q.CertificateStat(ctx, key)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		there, err := c.q.CertificateExists(ctx, key)
		if err == nil && !there {
			err = absent("stat", key)
		}
		return certmagic.KeyInfo{Key: key}, err
	case err != nil:
		return certmagic.KeyInfo{}, fmt.Errorf("look at %s: %w", key, err)
	}
	return certmagic.KeyInfo{Key: key, Modified: row.ChangedAt, Size: int64(row.Size), IsTerminal: true}, nil
}

// Lock implements [certmagic.Locker]: it waits until the lock is free.
func (c *Certificates) Lock(ctx context.Context, name string) error {
	for {
		ok, err := c.TryLock(ctx, name)
		if ok || err != nil {
			return err
		}
		if !wait.For(ctx, lockEvery/2+mathrand.N(lockEvery)) {
			return ctx.Err()
		}
	}
}

// TryLock implements [certmagic.TryLocker]. The lock is prolonged until Unlock.
func (c *Certificates) TryLock(ctx context.Context, name string) (bool, error) {
	holder := rand.Text()
	took, err := c.take(ctx, name, holder)
	if err != nil || !took {
		return false, err
	}
	prolonging, stop := context.WithCancel(context.Background())
	held := &heldLock{holder: holder, stop: stop, done: make(chan struct{})}
	c.mu.Lock()
	c.locks[name] = held
	c.mu.Unlock()
	go func() {
		defer close(held.done)
		c.prolong(prolonging, name, holder)
	}()
	return true, nil
}

// prolong keeps a lock until ctx ends.
func (c *Certificates) prolong(ctx context.Context, name, holder string) {
	for wait.For(ctx, lockLife/4) {
		took, err := c.take(ctx, name, holder)
		switch {
		case ctx.Err() != nil:
		case err != nil:
			c.log.Warn("cannot prolong the lock of a certificate, trying again", "lock", name, "error", err)
		case !took:
			c.log.Warn("another control plane has taken the lock of a certificate, which was not prolonged in time", "lock", name)
			return
		}
	}
}

func (c *Certificates) take(ctx context.Context, name, holder string) (bool, error) {
	n, err := c.q.TakeCertificateLock(ctx, queries.TakeCertificateLockParams{Name: name, Holder: holder, Seconds: lockLife.Seconds()})
	if err != nil {
		return false, fmt.Errorf("lock %s: %w", name, err)
	}
	return n > 0, nil
}

// Unlock implements [certmagic.Locker].
func (c *Certificates) Unlock(ctx context.Context, name string) error {
	c.mu.Lock()
	held := c.locks[name]
	delete(c.locks, name)
	c.mu.Unlock()
	if held == nil {
		return nil // given back by Close
	}
	held.stop()
	<-held.done
	if err := c.q.EndCertificateLock(ctx, queries.EndCertificateLockParams{Name: name, Holder: held.holder}); err != nil {
		return fmt.Errorf("unlock %s: %w", name, err)
	}
	return nil
}
