package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func certificatesAt(t testing.TB, url string, key []byte, before ...[]byte) *Certificates {
	t.Helper()
	c, err := OpenCertificates(t.Context(), url, slog.New(slog.DiscardHandler), key, before...)
	must(t, err)
	t.Cleanup(c.Close)
	return c
}

func TestCertificatesAreStoredLikeFiles(t *testing.T) {
	t.Parallel()
	c, ctx := certificatesAt(t, database(t), key), t.Context()
	if _, err := c.Load(ctx, "a/b"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing value gives %v", err)
	}
	if _, err := c.List(ctx, "a", true); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing folder gives %v", err)
	}
	for _, name := range []string{"a/b/one", "a/b/two", "a/c", "ab"} {
		must(t, c.Store(ctx, name, []byte("before")))
		must(t, c.Store(ctx, name, []byte(name)))
	}
	if value, err := c.Load(ctx, "a/b/two"); err != nil || string(value) != "a/b/two" {
		t.Errorf("%q, %v", value, err)
	}
	for _, x := range []struct {
		prefix    string
		recursive bool
		want      []string
	}{
		{"a", true, []string{"a/b/one", "a/b/two", "a/c"}},
		{"a/", false, []string{"a/b", "a/c"}},
		{"", false, []string{"a", "ab"}},
	} {
		if got, err := c.List(ctx, x.prefix, x.recursive); err != nil || !slices.Equal(got, x.want) {
			t.Errorf("below %q (recursive %v) are %q, %v, want %q", x.prefix, x.recursive, got, err, x.want)
		}
	}
	if info, err := c.Stat(ctx, "a/c"); err != nil || !info.IsTerminal || info.Size == 0 || time.Since(info.Modified) > time.Hour {
		t.Errorf("a value is %+v, %v", info, err)
	}
	if info, err := c.Stat(ctx, "a/b"); err != nil || info.IsTerminal {
		t.Errorf("a folder is %+v, %v", info, err)
	}
	must(t, c.Delete(ctx, "a"))
	must(t, c.Delete(ctx, "a"))
	if c.Exists(ctx, "a") || c.Exists(ctx, "a/b/one") || !c.Exists(ctx, "ab") {
		t.Error("a deleted folder is not gone, or more than it is")
	}
	if _, err := c.Stat(ctx, "a/b"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a deleted folder gives %v", err)
	}
}

// Who reads the database, or a copy of it, gets no private key. A changed API key
// opens what the one before has encrypted, and what no key opens is gone.
func TestCertificatesAreEncrypted(t *testing.T) {
	t.Parallel()
	url, ctx := database(t), t.Context()
	secret, other := []byte("BEGIN PRIVATE KEY"), bytes.Repeat([]byte("o"), 32)
	must(t, certificatesAt(t, url, key).Store(ctx, "x.key", secret))
	c := openAt(t, url)
	var sealed []byte
	must(t, c.pool.QueryRow(ctx, "SELECT sealed FROM cluster.certificates").Scan(&sealed))
	if bytes.Contains(sealed, secret) {
		t.Error("the key can be read in the database")
	}
	// A row in the place of another one is not opened.
	_, err := c.pool.Exec(ctx, "INSERT INTO cluster.certificates (key, sealed) VALUES ('y.key', $1)", sealed)
	must(t, err)
	if _, err := certificatesAt(t, url, other, key).Load(ctx, "y.key"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a row in the place of another one gives %v", err)
	}
	if value, err := certificatesAt(t, url, other).Load(ctx, "x.key"); err != nil || !bytes.Equal(value, secret) {
		t.Errorf("after the change of the API key: %q, %v", value, err)
	}
	if certificatesAt(t, url, key).Exists(ctx, "x.key") {
		t.Error("a value that no key opens is still there")
	}
}

// Of many that want one lock, in two control planes, one at a time has it.
func TestOneHasTheLockOfACertificate(t *testing.T) {
	t.Parallel()
	url := database(t)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	var inside atomic.Int64
	var waiting sync.WaitGroup
	for i := range 2 {
		c := certificatesAt(t, url, key)
		for range 3 {
			waiting.Go(func() {
				if err := c.Lock(ctx, "x"); err != nil {
					t.Error(err)
					return
				}
				if n := inside.Add(1); n != 1 {
					t.Errorf("%d have the lock", n)
				}
				if ok, err := c.TryLock(ctx, "x"); ok || err != nil {
					t.Errorf("control plane %d gets the lock twice: %v", i, err)
				}
				inside.Add(-1)
				if err := c.Unlock(ctx, "x"); err != nil {
					t.Error(err)
				}
			})
		}
	}
	waiting.Wait()
}

// The lock of a control plane that has died ends with its time.
func TestALockOfACertificateExpires(t *testing.T) {
	t.Parallel()
	url, ctx := database(t), t.Context()
	c := certificatesAt(t, url, key)
	_, err := openAt(t, url).pool.Exec(ctx, "INSERT INTO cluster.certificate_locks VALUES ('x', 'dead', clock_timestamp() + interval '1 second'), ('y', 'dead', clock_timestamp() + interval '1 hour')")
	must(t, err)
	if ok, err := c.TryLock(ctx, "x"); ok || err != nil {
		t.Errorf("a lock that another one has: %v, %v", ok, err)
	}
	bounded, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	must(t, c.Lock(bounded, "x"))
	brief, end := context.WithTimeout(ctx, 50*time.Millisecond)
	defer end()
	if err := c.Lock(brief, "y"); err == nil {
		t.Error(fmt.Errorf("a lock that another one has for an hour was given"))
	}
}
