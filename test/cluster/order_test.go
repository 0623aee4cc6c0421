package cluster

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/programs"
	"github.com/tunnox-net/tunnox/test/services"
	"github.com/tunnox-net/tunnox/test/truth"
)

// TestAnyOrder: the forwarder starts first, then the control plane, then commands are
// sent, and Redis starts last. Everything connects without help.
func TestAnyOrder(t *testing.T) {
	t.Parallel()
	redis := services.StartRedis(t)
	redis.Kill(t)
	state := fmt.Sprintf("127.0.0.10:%d", programs.FreePort(t))
	token := filepath.Join(t.TempDir(), "join-token")
	f := programs.LaunchServer(t, "127.0.0.11", "forwarder", "--redis", redis.URL(), "--control", state, "--join-token-file", token)
	f.Says("waiting for Redis", 20*time.Second)
	control := programs.StartServerAt(t, "127.0.0.10", "control", "--postgres", services.Postgres(t), "--redis", redis.URL(), "--state", state)
	control.Says("starting without Redis", time.Second)
	e := commandedWithout(t, control.API)
	source, target := e.source, e.target
	if f.Exited() {
		t.Fatal("the forwarder has ended")
	}
	redis.Start(t)
	f.Says("no control plane gives a certificate yet", 20*time.Second) // there is no token
	if err := os.Symlink(filepath.Join(control.Dir, "join-token"), token); err != nil {
		t.Fatal(err)
	}
	f.WaitReady(t)
	e.sourceAgent, e.targetAgent = f.Join(t, e.API, source), f.Join(t, e.API, target)
	e.worksAndShows(t)
}

// TestServeWithoutRedis: the same for a process with both roles.
func TestServeWithoutRedis(t *testing.T) {
	t.Parallel()
	redis := services.StartRedis(t)
	redis.Kill(t)
	s := programs.LaunchServer(t, "127.0.0.10", "serve", "--postgres", services.Postgres(t), "--redis", redis.URL())
	s.WaitAPI(t)
	e := commandedWithout(t, s.API)
	redis.Start(t)
	s.WaitReady(t)
	e.sourceAgent, e.targetAgent = s.Join(t, e.API, e.source), s.Join(t, e.API, e.target)
	e.worksAndShows(t)
}

// early is a set of clients and a mapping that were made while there was no Redis.
type early struct {
	*ends
	port int
}

func commandedWithout(t *testing.T, api *programs.API) *early {
	t.Helper()
	ready, err := api.Call(http.MethodGet, "/ready", nil)
	if err != nil || ready.Status != http.StatusOK || !strings.Contains(string(ready.Body), "degraded") {
		t.Errorf("ready without Redis: %d %s, %v", ready.Status, ready.Body, err)
	}
	e := &early{ends: &ends{API: api, user: api.CreateUser(t, "ann")}}
	e.source, e.target = api.CreateClient(t, e.user.ID, "source"), api.CreateClient(t, e.user.ID, "target")
	// A user who is in no read model can log in, and use what the login gave.
	password := map[string]any{"username": "ANN", "password": "correct horse battery staple"}
	api.Do(t, http.MethodPut, fmt.Sprintf("/api/v1/users/%d", e.user.ID), map[string]any{"password": password["password"]}, nil)
	api.Refused(t, http.StatusUnauthorized, "login_refused", http.MethodPost, "/api/v1/auth/login", map[string]any{"username": "ann", "password": "wrong"})
	api.Refused(t, http.StatusUnauthorized, "login_refused", http.MethodPost, "/api/v1/auth/login", map[string]any{"username": "bob", "password": "wrong"})
	var tokens struct {
		Access string `json:"access_token"`
	}
	api.Do(t, http.MethodPost, "/api/v1/auth/login", password, &tokens)
	programs.NewAPI(t, api.URL, tokens.Access).Do(t, http.MethodGet, "/api/v1/auth/me", nil, nil)
	m := api.CreateMapping(t, e.wanted(t, programs.Listen(t, programs.Echo).Port))
	e.port = m.LocalPort
	var read programs.Mapping
	api.Do(t, http.MethodGet, fmt.Sprintf("/api/v1/mappings/%d", m.ID), nil, &read)
	if read.LocalPort != m.LocalPort {
		t.Errorf("read %+v, made %+v", read, m)
	}
	return e
}

func (e *early) worksAndShows(t *testing.T) {
	t.Helper()
	works(t, e.port)
	programs.Eventually(t, settleLimit, func() error {
		log, err := truth.Read(e.API)
		if err != nil {
			return err
		}
		return errors.Join(log.Shown(e.API), log.Listened(e.sourceAgent, e.source.ID))
	})
	ready, err := e.Call(http.MethodGet, "/ready", nil)
	if err != nil || strings.Contains(string(ready.Body), "degraded") {
		t.Errorf("ready with Redis: %d %s, %v", ready.Status, ready.Body, err)
	}
}
