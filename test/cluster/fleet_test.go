package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"regexp"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tunnox-net/tunnox/agent"
	"github.com/tunnox-net/tunnox/test/programs"
	"github.com/tunnox-net/tunnox/transport"
	"github.com/tunnox-net/tunnox/wire"
)

// fleet is many agents in this process, each with a client and a loopback address of
// its own, as if each were on a machine of its own.
type fleet struct {
	clients []programs.Client
	user    programs.User
	ctx     context.Context // of the agents
	running sync.WaitGroup
	dials   atomic.Int64

	mu       sync.Mutex
	welcomed map[int64]time.Time // when each client was welcomed last; guarded by mu
	opened   map[int64]time.Time // when the listener of each mapping was opened; guarded by mu
	ended    []error             // guarded by mu
	failed   map[string]int      // why attempts to connect failed, and how often; guarded by mu
}

// unlimited gives a user no quota.
func unlimited(t *testing.T, api *programs.API, user int64) {
	t.Helper()
	api.Do(t, http.MethodPut, fmt.Sprintf("/api/v1/users/%d/quota", user), map[string]any{"max_clients": nil, "max_mappings": nil,
		"max_active_mappings": nil, "max_connections_per_mapping": nil, "total_bandwidth_limit": nil, "monthly_traffic_limit": nil}, nil)
}

// startFleet makes n clients of a user and connects an agent for each, in turn to
// the servers.
func startFleet(t *testing.T, api *programs.API, n int, servers ...*programs.Server) *fleet {
	t.Helper()
	f := &fleet{user: api.CreateUser(t, "fleet"), welcomed: map[int64]time.Time{}, opened: map[int64]time.Time{},
		failed: map[string]int{}}
	unlimited(t, api, f.user.ID)
	var cancel context.CancelFunc
	f.ctx, cancel = context.WithCancel(context.Background())
	t.Cleanup(func() {
		cancel()
		f.running.Wait()
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, err := range f.ended[:min(len(f.ended), 3)] {
			t.Errorf("an agent ended: %v", err)
		}
	})
	f.grow(t, api, n, servers...)
	return f
}

// grow adds agents until there are n.
func (f *fleet) grow(t *testing.T, api *programs.API, n int, servers ...*programs.Server) {
	t.Helper()
	first := len(f.clients)
	f.clients = append(f.clients, make([]programs.Client, n-first)...)
	var g errgroup.Group
	g.SetLimit(32)
	for i := first; i < n; i++ {
		g.Go(func() error {
			answer, err := api.Call(http.MethodPost, "/api/v1/clients", map[string]any{"user_id": f.user.ID, "client_name": fmt.Sprintf("member-%d", i)})
			if err == nil && answer.Status != http.StatusCreated {
				err = fmt.Errorf("create client: %d %s", answer.Status, answer.Body)
			}
			if err == nil {
				err = json.Unmarshal(answer.Body, &f.clients[i])
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	for i := first; i < n; i++ {
		a, err := f.member(f.clients[i], i, servers[i%len(servers)])
		if err != nil {
			t.Fatal(err)
		}
		f.running.Go(func() {
			if err := a.Run(f.ctx); err != nil {
				f.mu.Lock()
				defer f.mu.Unlock()
				f.ended = append(f.ended, err)
			}
		})
		if i%100 == 99 { // they did not buy all their machines today
			f.waitWelcomed(t, i+1, time.Time{})
		}
	}
	f.waitWelcomed(t, n, time.Time{})
}

func (f *fleet) member(c programs.Client, i int, server *programs.Server) (*agent.Agent, error) {
	credential, err := wire.ParseAuthCode(c.AuthCode)
	if err != nil {
		return nil, err
	}
	pin, err := transport.ParsePin(server.Pin)
	if err != nil {
		return nil, err
	}
	from := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 1, byte(i/250), byte(1+i%250))}}
	dial := transport.DialConfig{Pins: []transport.Pin{pin}, Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		f.dials.Add(1)
		return from.DialContext(ctx, network, address)
	}}
	return agent.New(agent.Config{
		Servers: []string{server.Agents},
		Dial: func(ctx context.Context, address string) (transport.Session, error) {
			return transport.DialTLS(ctx, address, dial)
		},
		Sessions: 1,
		Identity: agent.Identity{ClientID: c.ID, Credential: credential},
		Online: func(client int64, _ string) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.welcomed[client] = time.Now()
		},
		Logger: slog.New(fleetLog{f}),
	})
}

// welcomes gives the times after since at which a client was welcomed, sorted.
func (f *fleet) welcomes(since time.Time) []time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []time.Time
	for _, at := range f.welcomed {
		if at.After(since) {
			all = append(all, at)
		}
	}
	slices.SortFunc(all, time.Time.Compare)
	return all
}

func (f *fleet) waitWelcomed(t *testing.T, n int, since time.Time) {
	t.Helper()
	programs.Eventually(t, reconnectTime(n)+30*time.Second, func() error {
		if got := len(f.welcomes(since)); got < n {
			return fmt.Errorf("%d of %d agents are connected; tries failed for %s", got, n, f.failures())
		}
		return nil
	})
}

// welcomedSince reports whether a client was welcomed after a time.
func (f *fleet) welcomedSince(client int64, moment time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.welcomed[client].After(moment)
}

// openedAt gives the time at which the listener of a mapping was opened.
func (f *fleet) openedAt(mapping int64) (time.Time, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	at, ok := f.opened[mapping]
	return at, ok
}

// fleetLog reads the agents' logs: that a listener is open, and why there is no
// session.
type fleetLog struct{ f *fleet }

func (fleetLog) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelInfo }
func (l fleetLog) WithAttrs([]slog.Attr) slog.Handler             { return l }
func (l fleetLog) WithGroup(string) slog.Handler                  { return l }

func (l fleetLog) Handle(_ context.Context, r slog.Record) error {
	l.f.mu.Lock()
	defer l.f.mu.Unlock()
	r.Attrs(func(a slog.Attr) bool {
		switch {
		case r.Message == "listener opened" && a.Key == "mapping":
			l.f.opened[a.Value.Int64()] = r.Time
		case r.Message == "not connected" && a.Key == "reason":
			l.f.failed[addresses.ReplaceAllString(a.Value.String(), "ADDRESS")]++
		}
		return true
	})
	return nil
}

var addresses = regexp.MustCompile(`\d+\.\d+\.\d+\.\d+:\d+`)

// failures gives the reasons of failed attempts to connect, and their numbers.
func (f *fleet) failures() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return fmt.Sprint(f.failed)
}

// quantile gives the value below which part of the sorted values are.
func quantile(sorted []time.Duration, part float64) time.Duration {
	return sorted[min(int(part*float64(len(sorted))), len(sorted)-1)]
}
