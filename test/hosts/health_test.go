package hosts

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/pace"
	"github.com/tunnox-net/tunnox/test/programs"
)

// patient is a web service that says its name, and says of itself how it is.
type patient struct {
	*httptest.Server
	status atomic.Int64 // of /healthz; 0 = it never answers
	last   atomic.Int64 // when a visitor was served, in nanoseconds
}

func patientNamed(t testing.TB, name string) *patient {
	p := &patient{}
	p.status.Store(http.StatusNoContent)
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/healthz" {
			p.last.Store(time.Now().UnixNano())
			_, _ = io.WriteString(w, name)
			return
		}
		status := int(p.status.Load())
		if status == 0 {
			<-r.Context().Done()
			return
		}
		w.WriteHeader(status)
	}))
	t.Cleanup(p.Close)
	return p
}

// A target whose health check fails gets no new connections and no requests over old
// ones, within the interval; it comes back by itself, and both are shown.
func TestHealthChecks(t *testing.T) {
	for form, start := range map[string]func(*testing.T, ...string) *world{
		"embedded":       func(t *testing.T, args ...string) *world { return embedded(t, args...) },
		"two forwarders": func(t *testing.T, args ...string) *world { return cluster(t, 1, args...) },
	} {
		t.Run(form, func(t *testing.T) {
			t.Parallel() // it mostly waits
			first := programs.FreePort(t)
			w := start(t, "--public-ports", fmt.Sprintf("%d-%d", first, first+9), "--public-address", "127.0.0.1")
			a, b := patientNamed(t, "a"), patientNamed(t, "b")
			at := func(p *patient) string { return p.Listener.Addr().String() }
			m := w.publish(port(t, at(a)), map[string]any{
				"targets":      []any{map[string]any{"client_id": w.target.ID, "target": at(a)}, map[string]any{"client_id": w.target.ID, "target": at(b)}},
				"health_check": map[string]any{"kind": "http", "path": "/healthz", "interval_seconds": 1}})
			path := fmt.Sprintf("/api/v1/mappings/%d", m.ID)
			shown := func(of string, want ...string) {
				t.Helper()
				programs.Eventually(t, limit, func() error {
					var got struct {
						Health []struct {
							State string `json:"state"`
						} `json:"health"`
					}
					w.api.Do(t, http.MethodGet, of, nil, &got)
					var states []string
					for _, h := range got.Health {
						states = append(states, h.State)
					}
					if fmt.Sprint(states) != fmt.Sprint(want) {
						return fmt.Errorf("the targets are %v, want %v", states, want)
					}
					return nil
				})
			}
			visit := func() string {
				t.Helper()
				answer, err := w.visitors.Get(m.URL)
				if err != nil {
					t.Fatal(err)
				}
				defer answer.Body.Close()
				name, err := io.ReadAll(answer.Body)
				if err != nil || answer.StatusCode != http.StatusOK {
					t.Fatalf("a visitor gets %d %s, %v", answer.StatusCode, name, err)
				}
				return string(name)
			}
			// only visits for a while, until the last n visitors were served by one.
			only := func(name string, n int) {
				t.Helper()
				run := 0
				programs.Eventually(t, limit, func() error {
					if visit() == name {
						run++
					} else {
						run = 0
					}
					if run < n {
						return fmt.Errorf("%d visitors in a row were served by %s", run, name)
					}
					return nil
				})
			}
			programs.Eventually(t, limit, func() error { // the forwarder hears of the mapping a moment later
				answer, err := w.visitors.Get(m.URL)
				if err == nil {
					_ = answer.Body.Close()
					if answer.StatusCode != http.StatusOK {
						err = fmt.Errorf("a visitor gets %s", answer.Status)
					}
				}
				return err
			})
			shown(path, "up", "up")
			illnesses := []int64{http.StatusServiceUnavailable, 0} // it says so, or says nothing
			if form != "embedded" {
				illnesses = illnesses[:1]
			}
			for _, ill := range illnesses {
				watch := pace.Measure(t)
				fell := time.Now()
				a.status.Store(ill)
				only("b", 60)
				shown(path, "down", "up")
				if served := time.Unix(0, a.last.Load()).Sub(fell); served > watch.Allow(3*time.Second) {
					t.Errorf("with status %d of its check it was served for %v, slowness %.1f", ill, served, watch.Slowness())
				}
				for range 40 {
					if name := visit(); name != "b" {
						t.Errorf("a target that is down serves a visitor")
					}
				}
				out := w.tunnox(t, "mapping", "show", fmt.Sprint(m.ID))
				if !strings.Contains(out, "state=down") || !strings.Contains(out, "state=up") {
					t.Errorf("tunnox mapping show says %s", out)
				}
				a.status.Store(http.StatusOK)
				shown(path, "up", "up")
			}
			if form != "embedded" {
				return
			}

			// One target, which takes connections or does not.
			c := serviceNamed(t, "c")
			var single struct {
				ID int64 `json:"mapping_id"`
			}
			programs.Eventually(t, limit, func() error {
				answer, err := w.api.Call(http.MethodPost, "/api/v1/mappings", map[string]any{"user_id": w.user.ID, "protocol": "tcp", "public_port": 0, "target_client_id": w.target.ID,
					"target": fmt.Sprintf("127.0.0.1:%d", c.port), "health_check": map[string]any{"kind": "tcp", "interval_seconds": 1}})
				if err == nil && answer.Status != http.StatusCreated {
					err = fmt.Errorf("%d %s", answer.Status, answer.Body)
				}
				if err == nil {
					answer.Read(t, &single)
				}
				return err
			})
			path = fmt.Sprintf("/api/v1/mappings/%d", single.ID)
			shown(path, "up")
			c.stop()
			shown(path, "down")
			c.start()
			shown(path, "up")
			w.api.Do(t, http.MethodPut, path, map[string]any{"health_check": map[string]any{}}, nil)
			shown(path)
		})
	}
}

// tunnox runs the command line and gives what it prints.
func (w *world) tunnox(t testing.TB, args ...string) string {
	t.Helper()
	p := programs.Start(t, "tunnox", []string{"TUNNOX_API=" + w.api.URL, "TUNNOX_API_KEY=" + w.api.Key}, args...)
	if err := p.Wait(pace.Guard); err != nil {
		t.Error(err)
	}
	return p.Said(1 << 16)
}
