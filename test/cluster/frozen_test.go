package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/tunnox-net/tunnox/test/programs"
	"github.com/tunnox-net/tunnox/test/services"
	"github.com/tunnox-net/tunnox/test/truth"
)

// TestFrozenControlPlane: the control plane that relays and projects is frozen while
// commands and traffic go on at another one, and wakes up late. Then the same happens
// to the one that took over.
func TestFrozenControlPlane(t *testing.T) {
	t.Parallel()
	postgres, redis := services.Postgres(t), services.Redis(t)
	c := programs.StartCluster(t, 2, postgres, redis)
	w := inWorld(t, c)
	planes := []*programs.Server{c.Control, programs.StartControlBeside(t, "127.0.0.15", c.Control)}
	traffic := connections(t, trafficEvery, w.across, w.same)
	for i, frozen := range planes {
		works := planes[1-i]
		holds(t, frozen, 1)
		w.far.API, w.api = works.API, works.API
		load := commands(t, commandPause, w.far, w.service)
		ofCommands(t, load, 10)
		signal(t, frozen, syscall.SIGSTOP)
		began := time.Now()
		holds(t, works, 1)
		after := time.Since(began)
		time.Sleep(awayTime(t) - after)
		signal(t, frozen, syscall.SIGCONT)
		ofCommands(t, load, 10)
		holds(t, frozen, 0)
		load.Stop()
		all := load.between(time.Time{}, time.Time{})
		for _, o := range failed(all) {
			t.Errorf("a command while the other control plane was frozen: %v", o.err)
		}
		t.Logf("%d commands while the relay's owner was frozen, the slowest took %v; the other had its leases after %v",
			len(all), slowest(all).Round(time.Millisecond), after.Round(time.Millisecond))
		w.settled(t)
		w.api = frozen.API
		w.settled(t)
		feedEqualsLog(t, redis, w.api)
	}
	w.lives(t)
	allWell(t, traffic)
}

// holds waits until a control plane has the leases, or has none.
func holds(t *testing.T, control *programs.Server, want float64) {
	t.Helper()
	programs.Eventually(t, 15*time.Second, func() error {
		for _, lease := range []string{"relay", "projector"} {
			held, err := control.Metric(fmt.Sprintf(`tunnox_lease_held{lease="%s"}`, lease))
			if err != nil {
				return err
			}
			if held != want {
				return fmt.Errorf("lease %s of %s is held: %v, want %v", lease, control.API.URL, held, want)
			}
		}
		return nil
	})
}

// feedEqualsLog: every position on the feed is a record of the log, each once and in
// order, up to the end.
func feedEqualsLog(t *testing.T, redisURL string, api *programs.API) {
	t.Helper()
	log, err := truth.Read(api)
	if err != nil {
		t.Fatal(err)
	}
	options, err := goredis.ParseURL(redisURL)
	if err != nil {
		t.Fatal(err)
	}
	client := goredis.NewClient(options)
	defer client.Close()
	entries, err := client.XRange(context.Background(), "tunnox:feed", "-", "+").Result()
	if err != nil {
		t.Fatal(err)
	}
	last := int64(0)
	for _, e := range entries {
		position, sequence, _ := strings.Cut(e.ID, "-")
		if sequence != "0" {
			continue // a control entry
		}
		var at int64
		if _, err := fmt.Sscan(position, &at); err != nil {
			t.Fatal(err)
		}
		if last != 0 && at != last+1 {
			t.Errorf("in the feed %d stands behind %d", at, last)
		}
		last = at
	}
	if last != int64(len(log.Records)) {
		t.Errorf("the feed ends at %d, the log at %d", last, len(log.Records))
	}
}

// TestFrozenForwarder: the target's forwarder is frozen for longer than its leases
// last, and its agent connects to the other one. When the frozen forwarder wakes up,
// its actions change nothing. No connection reaches the service twice.
func TestFrozenForwarder(t *testing.T) {
	t.Parallel()
	const frozenFor = 20 * time.Second
	c := start(t, 2)
	a, b := c.Forwarders[0], c.Forwarders[1]
	e := &ends{API: c.Control.API, user: c.Control.API.CreateUser(t, "ann")}
	e.source, e.target = e.CreateClient(t, e.user.ID, "source"), e.CreateClient(t, e.user.ID, "target")
	e.sourceAgent = a.Join(t, e.API, e.source)
	e.targetAgent = b.Join(t, e.API, e.target, "--server", a.Agents)

	var mu sync.Mutex
	seen := map[string]int{}
	service := programs.Listen(t, func(conn *net.TCPConn) {
		id, err := io.ReadAll(conn)
		if err != nil {
			return // it was reset, so nobody believes that it was delivered
		}
		mu.Lock()
		seen[string(id)]++
		mu.Unlock()
		_, _ = conn.Write(id)
	}).Port
	port := e.mapping(t, service)
	ask := func(id string) error {
		got, err := programs.Ask(port, []byte(id))
		if err == nil && string(got) != id {
			err = fmt.Errorf("asked %q, was answered %q", id, got)
		}
		return err
	}

	load := newLoad(t)
	var number int
	load.every(trafficEvery, func() outcome {
		mu.Lock()
		number++
		id := fmt.Sprintf("connection %d", number)
		mu.Unlock()
		return outcome{err: ask(id)}
	})
	signal(t, b, syscall.SIGSTOP)
	frozen := time.Now()
	var moved time.Duration
	programs.Eventually(t, frozenFor+15*time.Second, func() error {
		err := ask("moved?")
		moved = time.Since(frozen)
		return err
	})
	time.Sleep(frozenFor - time.Since(frozen))
	signal(t, b, syscall.SIGCONT)
	awake := time.Now()
	for time.Since(awake) < 5*time.Second { // in this time the late forwarder finishes what it had begun
		if err := e.shows(e.target.ID, "online"); err != nil {
			t.Fatalf("%v after the frozen forwarder woke up: %v", time.Since(awake), err)
		}
		time.Sleep(50 * time.Millisecond)
	}
	load.Stop()
	for _, o := range failed(load.between(awake, time.Time{})) {
		t.Errorf("a connection %v after the frozen forwarder woke up: %v", o.at.Sub(awake), o.err)
	}
	lost := failed(load.between(time.Time{}, awake))
	t.Logf("connections worked again %v after the target's forwarder froze; %d failed meanwhile", moved.Round(time.Millisecond), len(lost))
	mu.Lock()
	for id, times := range seen {
		if times > 1 && strings.HasPrefix(id, "connection") {
			t.Errorf("%s reached the service %d times", id, times)
		}
	}
	mu.Unlock()
	for _, f := range c.Forwarders { // and the frozen one can be used again
		other := e.CreateClient(t, e.user.ID, filepath.Base(f.Dir))
		between := *e
		between.target, between.targetAgent = other, f.Join(t, e.API, other)
		between.mapping(t, service)
	}
	log, err := truth.Read(e.API)
	if err == nil {
		err = errors.Join(log.Shown(e.API), log.Listened(e.sourceAgent, e.source.ID))
	}
	if err != nil {
		t.Error(err)
	}
}

// shows checks a client's status.
func (e *ends) shows(client int64, status string) error {
	var shown programs.Client
	answer, err := e.Call(http.MethodGet, fmt.Sprintf("/api/v1/clients/%d", client), nil)
	if err == nil {
		err = json.Unmarshal(answer.Body, &shown)
	}
	if err == nil && shown.Status != status {
		err = fmt.Errorf("client %d is not shown as %s: %s", client, status, answer.Body)
	}
	return err
}
