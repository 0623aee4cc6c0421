package webhooks

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/programs"
	"github.com/tunnox-net/tunnox/test/services"
)

func TestMain(m *testing.M) { programs.Main(m) }

// receiver accepts messages, each after a moment, so that there is always one under
// way. It refuses some of the first ones once: these come again 5 s later.
type receiver struct {
	*httptest.Server
	t *testing.T

	mu     sync.Mutex
	secret string           // guarded by mu; "" until it is known
	ids    map[int64]string // guarded by mu; message ids by position
	asked  int              // guarded by mu; requests

	refused map[int64]bool // guarded by mu; by position
	again   int            // guarded by mu; of accepted messages
}

func newReceiver(t *testing.T) *receiver {
	r := &receiver{t: t, ids: map[int64]string{}, refused: map[int64]bool{}}
	r.Server = httptest.NewServer(r)
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, in *http.Request) {
	body, err := io.ReadAll(in.Body)
	if err != nil {
		return // the sender was killed
	}
	time.Sleep(3 * time.Millisecond) // the receiver's work
	var m struct{ Position int64 }
	if err := json.Unmarshal(body, &m); err != nil {
		r.t.Errorf("was sent %q: %v", body, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.asked++; r.asked%7 == 0 && r.asked < 30 && !r.refused[m.Position] {
		r.refused[m.Position] = true
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(r.secret, "whsec_"))
	mac := hmac.New(sha256.New, key)
	id := in.Header.Get("webhook-id")
	fmt.Fprintf(mac, "%s.%s.%s", id, in.Header.Get("webhook-timestamp"), body)
	if want := "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil)); err != nil || in.Header.Get("webhook-signature") != want {
		r.t.Errorf("the signature %s is wrong", in.Header.Get("webhook-signature"))
	}
	if before, ok := r.ids[m.Position]; ok {
		r.again++
		if before != id {
			r.t.Errorf("position %d came as %s and as %s", m.Position, before, id)
		}
	}
	r.ids[m.Position] = id
}

// hook makes a user whose webhook sends to the receiver.
func (r *receiver) hook(api *programs.API) programs.User {
	r.t.Helper()
	user := api.CreateUser(r.t, "ann")
	r.mu.Lock() // messages that come at once wait for the secret
	defer r.mu.Unlock()
	var made struct{ Secret string }
	api.Do(r.t, http.MethodPost, "/api/v1/webhooks", map[string]any{"user_id": user.ID, "url": r.URL, "events": []string{"client_*"}}, &made)
	r.secret = made.Secret
	return user
}

// complete waits until the receiver has got all events that the audit shows.
func (r *receiver) complete(api *programs.API, user programs.User) {
	r.t.Helper()
	records := programs.All[struct {
		Position int64
		ID       string
		Name     string
	}](r.t, api, fmt.Sprintf("/api/v1/audit?owner=%d&limit=500", user.ID))
	programs.Eventually(r.t, 60*time.Second, func() error {
		r.mu.Lock()
		defer r.mu.Unlock()
		told, missing := 0, 0
		for _, e := range records {
			switch id, ok := r.ids[e.Position]; {
			case !strings.HasPrefix(e.Name, "client_"):
				if ok {
					return fmt.Errorf("told of %s, which nobody asked for", e.Name)
				}
			case !ok:
				missing++
			case id != e.ID:
				return fmt.Errorf("%s came under the id %s", e.ID, id)
			default:
				told++
			}
		}
		if missing > 0 || told == 0 {
			return fmt.Errorf("%d are missing of %d", missing, missing+told)
		}
		r.t.Logf("told of all %d events in %d requests; %d were told again", told, r.asked, r.again)
		return nil
	})
}

// load creates clients of the user at an API, until it is stopped or the API is gone.
type load struct {
	stop    chan struct{}
	running sync.WaitGroup
}

func newLoad(t *testing.T, api *programs.API, user programs.User) *load {
	l := &load{stop: make(chan struct{})}
	l.running.Go(func() {
		for n := 0; ; n++ {
			select {
			case <-l.stop:
				return
			case <-time.After(5 * time.Millisecond):
			}
			answer, err := api.Call(http.MethodPost, "/api/v1/clients", map[string]any{"user_id": user.ID, "client_name": fmt.Sprint("c", n)})
			if err != nil {
				return
			}
			if answer.Status != http.StatusCreated {
				t.Errorf("a command was answered %d: %s", answer.Status, answer.Body)
				return
			}
		}
	})
	t.Cleanup(l.end)
	return l
}

func (l *load) end() {
	select {
	case <-l.stop:
	default:
		close(l.stop)
	}
	l.running.Wait()
}

// told waits for so many messages.
func (r *receiver) told(n int) {
	r.t.Helper()
	programs.Eventually(r.t, 60*time.Second, func() error {
		r.mu.Lock()
		defer r.mu.Unlock()
		if len(r.ids) < n {
			return fmt.Errorf("%d of %d have come", len(r.ids), n)
		}
		return nil
	})
}

func (r *receiver) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.ids)
}

// TestKillOfTheControlPlaneThatDelivers: another control plane continues where the
// first one was.
func TestKillOfTheControlPlaneThatDelivers(t *testing.T) {
	t.Parallel()
	first := programs.StartServerAt(t, "127.0.0.30", "control", "--postgres", services.Postgres(t), "--redis", services.Redis(t))
	second := programs.StartControlBeside(t, "127.0.0.31", first)
	r := newReceiver(t)
	user := r.hook(second.API)
	l := newLoad(t, second.API, user)
	r.told(30)
	// The first has the lease: it started before the second.
	if held, err := first.Sum("tunnox_lease_held"); err != nil || held < 3 {
		t.Errorf("the first holds %v leases, %v", held, err)
	}
	before := r.count()
	first.Kill()
	began := time.Now()
	r.told(before + 5)
	t.Logf("told again %v after kill -9 of who delivered", time.Since(began).Round(10*time.Millisecond))
	l.end()
	r.complete(second.API, user)
}

// TestKillOfTheEmbeddedServer: after its restart it continues where it was.
func TestKillOfTheEmbeddedServer(t *testing.T) {
	t.Parallel()
	s := programs.Serve(t)
	r := newReceiver(t)
	user := r.hook(s.API)
	for range 2 {
		l := newLoad(t, s.API, user)
		r.told(r.count() + 30)
		s.Kill()
		l.end()
		s.Restart(t)
	}
	r.complete(s.API, user)
}

// TestPrivateNetworksAreClosedByDefault: a server with default settings reaches no
// receiver on its own machine.
func TestPrivateNetworksAreClosedByDefault(t *testing.T) {
	t.Parallel()
	s := programs.Serve(t, "--webhook-networks", "")
	r := newReceiver(t)
	var made struct {
		ID int64 `json:"webhook_id"`
	}
	s.API.Do(t, http.MethodPost, "/api/v1/webhooks", map[string]any{"url": strings.Replace(r.URL, "127.0.0.1", "localhost", 1)}, &made)
	s.API.Do(t, http.MethodPost, fmt.Sprintf("/api/v1/webhooks/%d/test", made.ID), nil, nil)
	programs.Eventually(t, 20*time.Second, func() error {
		var page struct {
			Items []struct {
				Type string
				Last *struct{ Error string }
			}
		}
		s.API.Do(t, http.MethodGet, fmt.Sprintf("/api/v1/webhooks/%d/deliveries", made.ID), nil, &page)
		for _, d := range page.Items {
			if d.Last == nil {
				continue
			}
			if !strings.Contains(d.Last.Error, "webhooks may not reach") {
				t.Fatalf("%s: %s", d.Type, d.Last.Error)
			}
			return nil
		}
		return errors.New("nothing was tried")
	})
	if n := r.count(); n > 0 {
		t.Errorf("%d messages came", n)
	}
}
