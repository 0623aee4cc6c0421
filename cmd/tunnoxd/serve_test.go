package main

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	_ "modernc.org/sqlite" // to change a schema behind the server's back

	"github.com/tunnox-net/tunnox/control"
	"github.com/tunnox-net/tunnox/eventstore"
	"github.com/tunnox-net/tunnox/projections"
	"github.com/tunnox-net/tunnox/test/services"
)

func TestMain(m *testing.M) {
	syscall.Umask(0o077) // as the program does
	services.Main(m)
}

// transcript is what a program writes, readable while it runs.
type transcript struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (t *transcript) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.buf.Write(p)
}

func (t *transcript) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.buf.String()
}

// running is a tunnoxd in this process.
type running struct {
	addresses      map[string]string
	stdout, stderr *transcript
	stop           func() error // asks it to end and gives how it did
}

// start runs tunnoxd until it says how to go on, or has ended.
func start(t *testing.T, dir string, args ...string) (*running, error) {
	t.Helper()
	return startWith(t, dir, nil, args...)
}

// startWith is start with an environment.
func startWith(t *testing.T, dir string, environ []string, args ...string) (*running, error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{stdout: &transcript{}, stderr: &transcript{}}
	ended := make(chan error, 1)
	go func() {
		ended <- run(ctx, append(args, "--data", dir), environ, r.stdout, r.stderr)
	}()
	r.stop = sync.OnceValue(func() error {
		cancel()
		select {
		case err := <-ended:
			return err
		case <-time.After(30 * time.Second):
			return errors.New("did not end")
		}
	})
	t.Cleanup(func() { _ = r.stop() }) // a test that cares has stopped it
	for deadline := time.Now().Add(30 * time.Second); !strings.Contains(r.stdout.String(), "running"); {
		select {
		case err := <-ended:
			ended <- err
			return r, err
		case <-time.After(10 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("not up: %s", r.stderr)
		}
	}
	b, err := os.ReadFile(filepath.Join(dir, "addresses.json"))
	if err != nil {
		return r, err
	}
	return r, json.Unmarshal(b, &r.addresses)
}

func get(t *testing.T, url string) (status int, body string) {
	t.Helper()
	defer http.DefaultClient.CloseIdleConnections()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

var anyPort = []string{"--api", "127.0.0.1:0", "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0"}

func serveArgs(more ...string) []string {
	return append(append([]string{"serve"}, anyPort...), more...)
}

// A header is kept in memory before anybody knows whose it is.
func TestHeadersAreBoundedOnEverySocket(t *testing.T) {
	s, err := start(t, t.TempDir(), serveArgs()...)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"api", "metrics"} {
		r, err := http.NewRequest("GET", "http://"+s.addresses[name]+"/health", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X", strings.Repeat("x", 64<<10))
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		http.DefaultClient.CloseIdleConnections()
		if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("%s: a header of 64 KiB is answered with %d, want 431", name, resp.StatusCode)
		}
	}
}

func TestServeShowsItsNumbersAndProfilesOnlyWhenAsked(t *testing.T) {
	for _, profiles := range []bool{false, true} {
		s, err := start(t, t.TempDir(), serveArgs(fmt.Sprintf("--pprof=%v", profiles))...)
		if err != nil {
			t.Fatal(err)
		}
		if status, _ := get(t, "http://"+s.addresses["api"]+"/ready"); status != http.StatusOK {
			t.Errorf("/ready: %d", status)
		}
		status, body := get(t, "http://"+s.addresses["metrics"]+"/metrics")
		if status != http.StatusOK {
			t.Errorf("/metrics: %d", status)
		}
		for _, name := range []string{"tunnox_build_info", "tunnox_clients_online", "tunnox_mappings_active", "tunnox_bytes_transferred_total",
			"tunnox_append_latency_seconds", "tunnox_projection_position", "tunnox_relay_position", "tunnox_feed_position",
			"tunnox_push_latency_seconds", "tunnox_link_queue_seconds", "tunnox_api_request_duration_seconds", "go_goroutines", "process_open_fds"} {
			if !strings.Contains(body, "\n# TYPE "+name) {
				t.Errorf("/metrics lacks %s", name)
			}
		}
		want := http.StatusNotFound
		if profiles {
			want = http.StatusOK
		}
		if status, _ := get(t, "http://"+s.addresses["metrics"]+"/debug/pprof/goroutine?debug=1"); status != want {
			t.Errorf("profiles %v: %d", profiles, status)
		}
		if err := s.stop(); err != nil {
			t.Errorf("ended with %v", err)
		}
	}
}

func TestServeOverServices(t *testing.T) {
	postgres, redis := services.Postgres(t), services.Redis(t)
	first := ""
	for range 2 { // the second finds the schema and the rows, and needs the key of the first
		dir := t.TempDir()
		if first != "" {
			key, err := os.ReadFile(filepath.Join(first, "api-key"))
			if err == nil {
				err = os.WriteFile(filepath.Join(dir, "api-key"), key, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		first = dir
		s, err := start(t, dir, serveArgs("--postgres", postgres, "--redis", redis)...)
		if err != nil {
			t.Fatal(err)
		}
		if status, body := get(t, "http://"+s.addresses["api"]+"/ready"); status != http.StatusOK {
			t.Errorf("/ready: %d %s", status, body)
		}
		if err := s.stop(); err != nil {
			t.Errorf("ended with %v", err)
		}
	}
}

// A forwarder has no API, so that its probes are beside its metrics.
func TestAForwarderAloneCanBeProbed(t *testing.T) {
	ca := filepath.Join(t.TempDir(), "ca.pem")
	authority, err := control.OpenAuthority(t.Context(), control.NewFileVault(t.TempDir()), control.AuthorityOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: authority.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := start(t, t.TempDir(), "forwarder", "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--redis", services.Redis(t), "--cluster-ca", ca)
	if err != nil {
		t.Fatal(err)
	}
	for _, probe := range []string{"/health", "/ready"} {
		if status, body := get(t, "http://"+s.addresses["metrics"]+probe); status != http.StatusOK {
			t.Errorf("%s: %d %s", probe, status, body)
		}
	}
	if err := s.stop(); err != nil {
		t.Errorf("ended with %v", err)
	}
}

func TestReadyIsFromTheAnnouncementToTheDrain(t *testing.T) {
	p := newProcess(&config{}, io.Discard, slog.New(slog.DiscardHandler))
	p.dir, p.sockets = &dataDir{}, &listeners{}
	probes := p.metricsServer().Handler
	check := func(when string, want int) {
		t.Helper()
		for path, want := range map[string]int{"/health": http.StatusOK, "/ready": want} {
			w := httptest.NewRecorder()
			probes.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
			if w.Code != want {
				t.Errorf("%s: %s is %d, want %d", when, path, w.Code, want)
			}
		}
	}
	check("starting", http.StatusServiceUnavailable)
	if err := p.announce(announcement{}); err != nil {
		t.Fatal(err)
	}
	check("announced", http.StatusOK)
	p.atEnd("drain", func(context.Context) error {
		check("draining", http.StatusServiceUnavailable)
		return nil
	})
	if err := p.end(time.Second); err != nil {
		t.Fatal(err)
	}
}

// addMigration makes the database say that a newer program has worked on it.
func addMigration(t *testing.T, driver, source string) {
	t.Helper()
	db, err := sql.Open(driver, source)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec("INSERT INTO tunnox_schema (version_id, is_applied) VALUES (999, true)"); err != nil {
		t.Fatal(err)
	}
}

func TestNewerSchemasAreRefused(t *testing.T) {
	dir, url := t.TempDir(), services.Postgres(t)
	for _, args := range [][]string{{"migrate", "--data", dir}, {"migrate", "--postgres", url}} {
		for range 2 { // repeating it is safe
			if err := run(t.Context(), args, nil, io.Discard, io.Discard); err != nil {
				t.Fatal(err)
			}
		}
	}
	addMigration(t, "sqlite", filepath.Join(dir, logFile))
	if _, err := start(t, dir, serveArgs()...); !errors.Is(err, eventstore.ErrSchema) || !strings.Contains(err.Error(), "newer") {
		t.Errorf("embedded: %v", err)
	}
	addMigration(t, "pgx", url)
	if _, err := start(t, t.TempDir(), serveArgs("--postgres", url, "--redis", services.Redis(t))...); !errors.Is(err, eventstore.ErrSchema) || !strings.Contains(err.Error(), "newer") {
		t.Errorf("Postgres: %v", err)
	}
}

func TestServicesThatAreAwayAreNamed(t *testing.T) {
	_, err := start(t, t.TempDir(), serveArgs("--postgres", "postgres://u:secret@127.0.0.1:1/d", "--redis", services.Redis(t))...)
	if err == nil || strings.Contains(err.Error(), "secret") || !strings.Contains(err.Error(), "Postgres") {
		t.Errorf("Postgres away: %v", err)
	}
	refusing := strings.Replace(services.Redis(t), "redis://", "redis://nobody:secret@", 1)
	s, err := start(t, t.TempDir(), serveArgs("--postgres", services.Postgres(t), "--redis", refusing)...)
	if err == nil || strings.Contains(err.Error(), "secret") || !strings.Contains(err.Error(), "Redis") {
		t.Errorf("Redis refuses: %v", err)
	}
	away, err := start(t, t.TempDir(), "control", "--api", "127.0.0.1:0", "--state", "127.0.0.1:0", "--metrics", "127.0.0.1:0",
		"--postgres", services.Postgres(t), "--redis", "redis://:secret@127.0.0.1:1")
	if err != nil || !strings.Contains(away.stderr.String(), "starting without Redis") {
		t.Errorf("Redis away: %v\n%s", err, away.stderr)
	}
	if said := s.stderr.String() + away.stderr.String(); strings.Contains(said, "secret") {
		t.Errorf("the log shows a password:\n%s", said)
	}
}

func TestProgressIsShownWhenABuildTakesLong(t *testing.T) {
	var out bytes.Buffer
	p := &process{log: slog.New(slog.NewTextHandler(&out, nil))}
	p.showRebuild(projections.Progress{Done: 100, Head: 1000, Elapsed: 200 * time.Millisecond})
	if out.Len() > 0 {
		t.Errorf("a short build says %q", out.String())
	}
	p.showRebuild(projections.Progress{Done: 250_000, Head: 1_000_000, Elapsed: 2 * time.Second})
	for _, want := range []string{"events=250000", "of=1000000", "done=25%", "per_second=125000"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q lacks %s", out.String(), want)
		}
	}
}
