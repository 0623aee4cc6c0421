package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/eventstore"
	"github.com/tunnox-net/tunnox/eventstore/postgres"
	"github.com/tunnox-net/tunnox/test/programs"
	"github.com/tunnox-net/tunnox/test/services"
)

const manyCallers = 32

// measureControl fills the control plane's part of the table. Everything that writes
// uses one Postgres server that flushes to disk, one after the other.
func measureControl(l *lab, o options, t *table) {
	l.part(func(l *lab) {
		server := services.StartPostgres(l, services.PostgresOptions{Durable: true})
		t.section("control plane", "pgbench", "ours")
		inserts := map[int]figure{}
		for _, callers := range []int{1, manyCallers} {
			inserts[callers] = pgbench(l, server, callers, o.slice)
		}
		compare := func(what string, callers int, ours float64) {
			r := row{what: fmt.Sprintf("commands, %d callers, %s", callers, what), unit: "1/s",
				figures: []figure{inserts[callers], figure(ours)}}
			if callers == manyCallers && inserts[callers] > 0 {
				r.aim = 0.5 * float64(inserts[callers])
			}
			t.add(r)
		}

		url := server.Database(l)
		store := openStore(l, url)
		executor := newExecutor(l, store)
		for _, callers := range []int{1, manyCallers} {
			compare("executor on Postgres", callers, executor.rate(l, callers, o.slice))
		}
		rest := programs.Serve(l, "--postgres", server.Database(l), "--redis", services.StartRedis(l).URL())
		for _, callers := range []int{1, manyCallers} {
			compare("REST on Postgres and Redis", callers, restRate(l, rest.API, callers, o.slice))
		}
		embedded := programs.Serve(l)
		for _, callers := range []int{1, manyCallers} {
			compare("REST embedded", callers, restRate(l, embedded.API, callers, o.slice))
		}
		executor.fill(l, replayEvents)
		measureReplay(l, t, store)
	})
}

// pgbench gives how many rows a second this many clients insert, each in its own
// transaction, or missing.
func pgbench(l *lab, server *services.PostgresServer, clients int, d time.Duration) figure {
	program := server.Pgbench()
	if program == "" {
		l.Log("left out: pgbench is not installed")
		return missing
	}
	script := filepath.Join(l.TempDir(), "insert.sql")
	// A row as large as one of our events.
	text := `INSERT INTO bench (data) VALUES ('{"client_id":600000000,"user_id":100000001,"name":"a client of the bench","public_key":"AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="}');`
	if err := os.WriteFile(script, []byte(text), 0o644); err != nil {
		l.Fatal(err)
	}
	url := server.Database(l)
	psql := func(statement string) error {
		out, err := exec.Command(filepath.Join(filepath.Dir(program), "psql"), "-q", "-c", statement, url).CombinedOutput()
		if err != nil {
			return fmt.Errorf("psql: %w %s", err, out)
		}
		return nil
	}
	if err := psql("CREATE TABLE bench (id bigserial PRIMARY KEY, data jsonb NOT NULL, at timestamptz NOT NULL DEFAULT now())"); err != nil {
		l.Fatal(err)
	}
	seconds := max(2, int(d.Seconds()+0.5))
	out, err := exec.Command(program, "-n", "-M", "prepared", "-f", script, "-c", strconv.Itoa(clients), "-j", "2", "-T", strconv.Itoa(seconds), url).CombinedOutput()
	if err != nil {
		l.Fatalf("pgbench: %v\n%s", err, out)
	}
	tps := regexp.MustCompile(`tps = ([0-9.]+)`).FindSubmatch(out)
	if tps == nil {
		l.Fatalf("pgbench says no rate:\n%s", out)
	}
	n, err := strconv.ParseFloat(string(tps[1]), 64)
	if err != nil {
		l.Fatal(err)
	}
	return figure(n)
}

// rate calls do from this many callers for d and gives how often a second.
func rate(l *lab, callers int, d time.Duration, do func(caller int) error) float64 {
	var n atomic.Int64
	var mu sync.Mutex
	var failed error
	var work sync.WaitGroup
	began := time.Now()
	for caller := range callers {
		work.Go(func() {
			for time.Since(began) < d {
				if err := do(caller); err != nil {
					mu.Lock()
					failed = errors.Join(failed, err)
					mu.Unlock()
					return
				}
				n.Add(1)
			}
		})
	}
	work.Wait()
	took := time.Since(began).Seconds()
	if failed != nil {
		l.Fatal(failed)
	}
	return float64(n.Load()) / took
}

// restRate creates clients over the API; every caller has a user of its own.
func restRate(l *lab, api *programs.API, callers int, d time.Duration) float64 {
	users := make([]programs.User, callers)
	for i := range users {
		users[i] = api.CreateUser(l, fmt.Sprintf("caller-%d-%d", callers, i))
	}
	return rate(l, callers, d, func(caller int) error {
		answer, err := api.Call(http.MethodPost, "/api/v1/clients", map[string]any{"user_id": users[caller].ID, "client_name": "a client of the bench"})
		if err == nil && answer.Status != http.StatusCreated {
			err = fmt.Errorf("create client: %d %s", answer.Status, answer.Body)
		}
		return err
	})
}

func openStore(l *lab, url string) *postgres.Store {
	ctx := context.Background()
	if _, err := postgres.Migrate(ctx, url); err != nil {
		l.Fatal(err)
	}
	store, err := postgres.Open(ctx, url, postgres.Options{})
	if err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() { _ = store.Close() })
	return store
}

// executor runs commands in this process, as httpapi does.
type executor struct {
	*eventstore.Executor
	key   []byte
	users []int64
}

func newExecutor(l *lab, store eventstore.Store) *executor {
	e := &executor{Executor: eventstore.NewExecutor(store, eventstore.ExecutorOptions{})}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	l.Cleanup(func() { cancel(); <-done })
	public, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		l.Fatal(err)
	}
	e.key = public
	for i := range manyCallers {
		id, err := e.NextID(ctx, domain.SequenceUser)
		if err != nil {
			l.Fatal(err)
		}
		name := fmt.Sprintf("user-%d", i)
		if err := e.submit(domain.CreateUser{ID: id, Username: name, Email: name + "@example.org"}); err != nil {
			l.Fatal(err)
		}
		e.users = append(e.users, id)
	}
	return e
}

func (e *executor) submit(c domain.Command) error {
	_, err := e.Submit(context.Background(), domain.Submission{Command: c,
		Meta: domain.Metadata{At: time.Now().UTC(), Actor: "key:bench", Command: c.CommandName(), Source: "127.0.0.1:1", Allowed: "role:admin"}})
	return err
}

// create makes a client of the caller's user: two events.
func (e *executor) create(caller int) error {
	id, err := e.NextID(context.Background(), domain.SequenceClient)
	if err != nil {
		return err
	}
	return e.submit(domain.CreateClient{ID: id, UserID: e.users[caller], Name: "a client of the bench", PublicKey: e.key})
}

func (e *executor) rate(l *lab, callers int, d time.Duration) float64 {
	return rate(l, callers, d, e.create)
}
