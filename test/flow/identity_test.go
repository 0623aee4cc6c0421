package flow

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/pace"
	"github.com/tunnox-net/tunnox/test/programs"
	"github.com/tunnox-net/tunnox/test/services"
)

// promised is how soon access ends after a revocation. With many tests at once the
// tests allow more, in time of work.
const promised, allowed = time.Second, 5 * time.Second

func within(t *testing.T, what string, since time.Time) {
	t.Helper()
	took := time.Since(since)
	t.Logf("%s after %v, promised are %v", what, took.Round(time.Millisecond), promised)
	// This is the slowness of the present moment.
	if took > time.Duration(pace.Now()*float64(allowed)) {
		t.Errorf("%s only after %v", what, took)
	}
}

// withPassword makes a user who has logged in, and gives callers with the access token
// and with a key of the user.
func withPassword(t *testing.T, api *programs.API, id int64) (access, key *programs.API) {
	t.Helper()
	const password = "correct horse"
	api.Do(t, http.MethodPut, path("/users/%d", id), map[string]any{"password": password}, nil)
	var user struct{ Username string }
	api.Do(t, http.MethodGet, path("/users/%d", id), nil, &user)
	var tokens struct {
		Access string `json:"access_token"`
	}
	programs.NewAPI(t, api.URL, "").Do(t, http.MethodPost, path("/auth/login"), map[string]any{"username": user.Username, "password": password}, &tokens)
	access = programs.NewAPI(t, api.URL, tokens.Access)
	var made struct{ Key string }
	access.Do(t, http.MethodPost, path("/keys"), map[string]any{"name": "k"}, &made)
	return access, programs.NewAPI(t, api.URL, made.Key)
}

func refusedNow(api *programs.API) error {
	answer, err := api.Call(http.MethodGet, path("/auth/me"), nil)
	if err == nil && answer.Status != http.StatusUnauthorized {
		err = fmt.Errorf("is answered %d", answer.Status)
	}
	return err
}

// TestDisabledUserLosesEverything: sessions, streams, keys and logins of a user
// end when the user is disabled, and work again when the user is enabled.
func TestDisabledUserLosesEverything(t *testing.T) {
	t.Parallel()
	inEveryForm(t, func(t *testing.T, serve func(...string) *programs.Server) {
		p := newPair(t, serve())
		access, key := withPassword(t, p.API, p.user.ID)
		m := p.mapping(t, programs.Listen(t, answering("up")).Port)
		live := programs.Dial(t, m.LocalPort)
		expect(t, live, "up:")

		began := time.Now()
		p.Do(t, http.MethodPost, path("/users/%d/disable", p.user.ID), nil, nil)
		ended(t, live)
		within(t, "the live stream ended", began)
		for name, api := range map[string]*programs.API{"access token": access, "key": key} {
			programs.Eventually(t, allowed, func() error { return refusedNow(api) })
			within(t, "the "+name+" was refused", began)
		}
		closed(t, m.LocalPort)
		p.Do(t, http.MethodPost, path("/users/%d/enable", p.user.ID), nil, nil)
		waitAnswer(t, m.LocalPort, "up:again")
		key.Do(t, http.MethodGet, path("/auth/me"), nil, nil)

		live = programs.Dial(t, m.LocalPort)
		expect(t, live, "up:")
		began = time.Now()
		p.Do(t, http.MethodDelete, path("/users/%d", p.user.ID), nil, nil)
		ended(t, live)
		within(t, "the live stream of a deleted user ended", began)
		programs.Eventually(t, allowed, func() error { return refusedNow(key) })
		for _, agent := range []*programs.Process{p.sourceAgent, p.targetAgent} {
			if status := agent.Fails(10 * time.Second); status != 3 {
				t.Errorf("an agent of a deleted user ended with %d", status)
			}
		}
	})
}

// TestRevokedOnEveryControlPlane: a token of one control plane is valid at the others,
// and a token that one has revoked is refused by all.
func TestRevokedOnEveryControlPlane(t *testing.T) {
	args := []string{"--postgres", services.Postgres(t), "--redis", services.Redis(t)}
	one := programs.StartServer(t, "control", args...)
	two := programs.StartControlBeside(t, "127.0.0.1", one)
	for _, file := range []string{"audit-key", "jwt-key"} { // those of the first control plane, from the cluster's secrets
		first, err := os.ReadFile(filepath.Join(one.Dir, file))
		if err != nil {
			t.Fatal(err)
		}
		if second, err := os.ReadFile(filepath.Join(two.Dir, file)); err != nil || !bytes.Equal(first, second) {
			t.Errorf("%s of the other control plane is another (%v)", file, err)
		}
	}
	user := one.API.CreateUser(t, "ann")
	access, key := withPassword(t, one.API, user.ID)
	elsewhere := func(api *programs.API) *programs.API { return programs.NewAPI(t, two.API.URL, api.Key) }
	for name, api := range map[string]*programs.API{"access token": elsewhere(access), "key": elsewhere(key)} {
		if answer, err := api.Call(http.MethodGet, path("/auth/me"), nil); err != nil || answer.Status != http.StatusOK {
			t.Fatalf("the %s at the other control plane, right after it was made: %v, %v", name, answer.Status, err)
		}
	}
	var keys struct {
		Items []struct {
			ID int64 `json:"key_id"`
		}
	}
	one.API.Do(t, http.MethodGet, path("/keys"), nil, &keys)
	began := time.Now()
	one.API.Do(t, http.MethodDelete, path("/keys/%d", keys.Items[0].ID), nil, nil)
	if err := refusedNow(key); err != nil {
		t.Errorf("the revoked key where it was revoked: %v", err)
	}
	programs.Eventually(t, allowed, func() error { return refusedNow(elsewhere(key)) })
	within(t, "a revoked key was refused elsewhere", began)
	began = time.Now()
	access.Do(t, http.MethodPost, path("/auth/logout"), nil, nil)
	programs.Eventually(t, allowed, func() error { return refusedNow(elsewhere(access)) })
	within(t, "an ended login was refused elsewhere", began)
}

// TestUnusedAnonymousClientsEnd: the system deletes an anonymous client that nobody
// uses, and keeps one that is online or has a mapping.
func TestUnusedAnonymousClientsEnd(t *testing.T) {
	server := programs.Serve(t, "--anonymous-expiry", "2s")
	api := server.API
	anonymous := func() (*programs.Process, int64) {
		state := t.TempDir()
		agent := server.Agent(t, nil, "--state", state)
		var saved struct {
			ClientID int64 `json:"client_id"`
		}
		programs.Eventually(t, 10*time.Second, func() error {
			if err := readJSON(filepath.Join(state, "client.json"), &saved); err != nil {
				return err
			}
			if saved.ClientID == 0 {
				return fmt.Errorf("not registered yet")
			}
			return nil
		})
		api.WaitOnline(t, saved.ClientID)
		return agent, saved.ClientID
	}
	user := api.CreateUser(t, "ann")
	client := api.CreateClient(t, user.ID, "c")
	gone, unused := anonymous()
	stays, used := anonymous()
	_, online := anonymous()
	api.CreateMapping(t, programs.Mapping{UserID: user.ID, Protocol: "tcp", Source: client.ID, Target: used,
		LocalPort: programs.FreePort(t), TargetHost: "127.0.0.1", TargetPort: 1})
	gone.Kill()
	stays.Kill()
	programs.Eventually(t, 60*time.Second, func() error {
		answer, err := api.Call(http.MethodGet, path("/clients/%d", unused), nil)
		if err == nil && answer.Status != http.StatusNotFound {
			err = fmt.Errorf("client %d is still there", unused)
		}
		return err
	})
	for _, id := range []int64{used, online} {
		api.Do(t, http.MethodGet, path("/clients/%d", id), nil, nil)
	}
	var history struct {
		Items []struct {
			Name string
			Meta struct{ Actor, Allowed string }
		}
	}
	api.Do(t, http.MethodGet, path("/clients/%d/history", unused), nil, &history)
	if last := history.Items[len(history.Items)-1]; last.Name != "client_deleted" || last.Meta.Actor != "system" || last.Meta.Allowed != "never used" {
		t.Errorf("the log says %+v", last)
	}
}
