package services

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// PostgresEnv names a server to use instead of a private one: a URL whose user
// may create databases.
const PostgresEnv = "TUNNOX_TEST_POSTGRES"

// PostgresOptions configure a server that belongs to one test.
type PostgresOptions struct {
	// Durable flushes to disk as in production; without it, a crash of the
	// machine loses data and tests are several times faster.
	Durable bool
	// TCP listens on a free port of 127.0.0.1 too, for proxies and tunnels.
	TCP bool
	// Settings are further lines of the configuration, name to value.
	Settings map[string]string
}

// PostgresServer is a private server. Its data outlive Kill and Stop and are
// removed at the end.
type PostgresServer struct {
	options  PostgresOptions
	bin, dir string
	port     int

	mu      sync.Mutex
	running *process // guarded by mu; nil while stopped
}

var (
	sharedOnce     sync.Once
	sharedPostgres *PostgresServer
	errShared      error
)

// Postgres gives the URL of a new, empty database. It is on a private server
// that the tests of this binary share, or on the server of TUNNOX_TEST_POSTGRES.
// The database is dropped when the test ends.
func Postgres(t testing.TB) string {
	t.Helper()
	if external := os.Getenv(PostgresEnv); external != "" {
		return createDatabase(t, external)
	}
	sharedOnce.Do(func() {
		sharedPostgres, errShared = newPostgres(PostgresOptions{})
		if sharedPostgres != nil {
			atExit(sharedPostgres.remove)
		}
	})
	if errShared != nil {
		t.Fatal(errShared)
	}
	return sharedPostgres.Database(t)
}

// StartPostgres starts a server for this test alone, to be killed or measured.
// It is private also when TUNNOX_TEST_POSTGRES is set.
func StartPostgres(t testing.TB, options PostgresOptions) *PostgresServer {
	t.Helper()
	s, err := newPostgres(options)
	if s != nil {
		t.Cleanup(s.remove)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func newPostgres(options PostgresOptions) (*PostgresServer, error) {
	// Debian installs the servers of all versions outside of PATH.
	dirs, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil {
		return nil, err
	}
	slices.Reverse(dirs) // the newest first
	server, err := findBinary("postgres", "postgresql", dirs...)
	if err != nil {
		return nil, fmt.Errorf("%w, or set %s", err, PostgresEnv)
	}
	s := &PostgresServer{options: options, bin: filepath.Dir(server)}
	if s.dir, err = privateDir("tunnox-pg-"); err != nil {
		return nil, err
	}
	err = s.run("initdb", time.Minute, "-D", s.data(), "-U", "postgres", "-A", "trust",
		"--no-sync", "--no-instructions", "--encoding=UTF8", "--locale=C.UTF-8")
	if err != nil {
		return s, err
	}
	if s.port, err = freePort(); err != nil {
		return s, err
	}
	return s, s.start()
}

// spawn starts one of the server's programs, which writes into the log.
func (s *PostgresServer) spawn(program string, args ...string) (*process, error) {
	log, err := os.OpenFile(s.log(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	// The child has its own descriptor. It is a file and not a pipe, because backends
	// that outlive a killed postmaster would keep a pipe open.
	defer func() { _ = log.Close() }()
	cmd := exec.Command(filepath.Join(s.bin, program), args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = "/", log, log
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "TZ=UTC")
	p, err := startProcess(cmd)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", program, err)
	}
	return p, nil
}

func (s *PostgresServer) run(program string, limit time.Duration, args ...string) error {
	p, err := s.spawn(program, args...)
	if err != nil {
		return err
	}
	select {
	case <-p.done:
	case <-time.After(limit):
		p.end(syscall.SIGKILL)
	}
	if p.cmd.ProcessState == nil || !p.cmd.ProcessState.Success() {
		return fmt.Errorf("%s failed: %s", program, s.logTail())
	}
	return nil
}

func (s *PostgresServer) log() string { return filepath.Join(s.dir, "log") }

// logTail gives the end of the server's log, for messages.
func (s *PostgresServer) logTail() string {
	b, err := os.ReadFile(s.log())
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-4<<10):])
}

// PID is the id of the server's first process; the others are its children.
func (s *PostgresServer) PID() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running == nil {
		return 0
	}
	return s.running.pid()
}

func (s *PostgresServer) data() string { return filepath.Join(s.dir, "data") }

// Start starts the server again after Kill or Stop and waits until it answers.
func (s *PostgresServer) Start(t testing.TB) {
	t.Helper()
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
}

func (s *PostgresServer) start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running != nil {
		return errors.New("postgres is already running")
	}
	settings := map[string]string{
		"listen_addresses":        "",
		"unix_socket_directories": s.dir,
		"port":                    strconv.Itoa(s.port),
		"max_connections":         "200",
		"shared_buffers":          "128MB",
		"log_min_messages":        "fatal",
		"autovacuum_naptime":      "10s",
		"max_wal_size":            "2GB",
	}
	if s.options.TCP {
		settings["listen_addresses"] = "127.0.0.1"
	}
	if !s.options.Durable {
		settings["fsync"], settings["full_page_writes"], settings["synchronous_commit"] = "off", "off", "off"
	}
	for name, value := range s.options.Settings {
		settings[name] = value
	}
	args := []string{"-D", s.data()}
	for name, value := range settings {
		args = append(args, "-c", name+"="+value)
	}
	// A killed postmaster leaves these files. The next one would refuse to start while
	// another process happens to have the old process id.
	_ = os.Remove(filepath.Join(s.data(), "postmaster.pid"))
	p, err := s.spawn("postgres", args...)
	if err != nil {
		return err
	}
	if err := s.ready(p, 30*time.Second); err != nil {
		p.end(syscall.SIGKILL)
		return err
	}
	s.running = p
	return nil
}

// ready polls until the server answers a query.
func (s *PostgresServer) ready(p *process, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	for {
		conn, err := pgx.Connect(ctx, s.URL())
		if err == nil {
			return conn.Close(ctx)
		}
		select {
		case <-p.done:
			return fmt.Errorf("postgres ended while starting: %s", s.logTail())
		case <-ctx.Done():
			return fmt.Errorf("postgres does not answer: %w: %s", err, s.logTail())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Kill ends the server and all of its backends with signal 9, as a crash does.
func (s *PostgresServer) Kill(t testing.TB) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running == nil {
		return
	}
	backends := childrenOf(s.running.pid())
	s.running.end(syscall.SIGKILL)
	// Backends notice the death of the postmaster only at their next wait. A new server
	// refuses to start while one of them uses the shared memory.
	for _, pid := range backends {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	for _, pid := range backends {
		waitGone(pid, 5*time.Second)
	}
	s.running = nil
}

// Stop ends the server in order, breaking connections (a "fast" shutdown).
func (s *PostgresServer) Stop(t testing.TB) {
	t.Helper()
	s.end(syscall.SIGINT)
}

func (s *PostgresServer) end(sig syscall.Signal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running != nil {
		s.running.end(sig)
		s.running = nil
	}
}

// remove ends the server and deletes its data. SIGQUIT ends the backends too and writes
// no checkpoint.
func (s *PostgresServer) remove() {
	s.end(syscall.SIGQUIT)
	if err := os.RemoveAll(s.dir); err != nil {
		fmt.Fprintln(os.Stderr, "services: remove", s.dir, err)
	}
}

// URL is the address of the server's own database, postgres.
func (s *PostgresServer) URL() string { return s.url("postgres") }

func (s *PostgresServer) url(database string) string {
	q := url.Values{"host": {s.dir}, "port": {strconv.Itoa(s.port)}, "user": {"postgres"}, "sslmode": {"disable"}}
	if s.options.TCP {
		q.Set("host", "127.0.0.1")
	}
	return "postgres:///" + database + "?" + q.Encode()
}

// Addr is the server's TCP address; it is empty without [PostgresOptions.TCP].
func (s *PostgresServer) Addr() string {
	if !s.options.TCP {
		return ""
	}
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port))
}

// Database makes a new, empty database and gives its URL.
func (s *PostgresServer) Database(t testing.TB) string {
	t.Helper()
	return createDatabase(t, s.URL())
}

// Pgbench gives the path of pgbench beside the server, or "" when it is missing.
func (s *PostgresServer) Pgbench() string {
	path, err := findBinary("pgbench", "postgresql-contrib", s.bin)
	if err != nil {
		return ""
	}
	return path
}

var databaseNumber atomic.Int64

func createDatabase(t testing.TB, server string) string {
	t.Helper()
	name := fmt.Sprintf("tunnox_test_%d_%d", os.Getpid(), databaseNumber.Add(1))
	if err := execOn(server, "CREATE DATABASE "+name+" TEMPLATE template0"); err != nil {
		t.Fatalf("create a database on %s: %v", server, err)
	}
	t.Cleanup(func() {
		// A test that killed its server has nothing to drop.
		if err := execOn(server, "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)"); err != nil && os.Getenv(PostgresEnv) != "" {
			t.Logf("drop database %s: %v", name, err)
		}
	})
	u, err := url.Parse(server)
	if err != nil {
		t.Fatalf("parse the URL of postgres: %v", err)
	}
	u.Path = "/" + name
	return u.String()
}

func execOn(server, statement string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, server)
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, statement)
	return errors.Join(err, conn.Close(ctx))
}

// childrenOf lists the processes whose parent is pid.
func childrenOf(pid int) []int {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil
	}
	var pids []int
	for _, path := range stats {
		b, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		// pid (name) state parent ...: the name may hold spaces and brackets.
		text := string(b)
		fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
		if len(fields) < 2 || fields[1] != strconv.Itoa(pid) {
			continue
		}
		if n, err := strconv.Atoi(filepath.Base(filepath.Dir(path))); err == nil {
			pids = append(pids, n)
		}
	}
	return pids
}

// waitGone polls until there is no process pid, or it is a zombie.
func waitGone(pid int, limit time.Duration) {
	for deadline := time.Now().Add(limit); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || strings.Contains(string(b), ") Z ") {
			return
		}
	}
}
