package hosts

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/tunnox-net/tunnox/test/programs"
	"github.com/tunnox-net/tunnox/test/services"
)

// A mapping of protocol http without a source client has a host: chosen and kept, shown
// with its URL, kept through kill -9 of server and agent, and gone with the mapping.
func TestPublicHost(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		service := web(t, func(out http.ResponseWriter, in *http.Request) {
			fmt.Fprintf(out, "%s %s for %s", in.Method, in.URL, in.Host)
		})
		m := w.publish(service, nil)
		_, httpPort, _ := strings.Cut(w.address, ":")
		if m.Source != nil || !regexp.MustCompile(`^[a-z]+-[a-z]+(-\d+)?$`).MatchString(m.Host) || m.Path != "/" ||
			m.URL != fmt.Sprintf("http://%s.%s:%s/", m.Host, baseDomain, httpPort) {
			t.Fatalf("created %+v", m)
		}
		if bound := w.addresses(); bound["http"] != w.address || bound["public"] == "" {
			t.Errorf("addresses.json has %v", bound)
		}
		w.answers(m.URL+"a?b", 200, fmt.Sprintf("GET /a?b for %s.%s", m.Host, baseDomain))
		for _, other := range []string{strings.ToUpper(m.Host) + "." + baseDomain, m.Host + "." + baseDomain + ".", m.Host + "." + strings.ToUpper(baseDomain) + ":80"} {
			if status, body, err := w.get("http://" + other + "/"); status != 200 || err != nil {
				t.Errorf("asked for as %s it answers %d %q, %v", other, status, body, err)
			}
		}

		w.entry.Kill()
		w.entry.Restart(t)
		w.answers(m.URL, 200, "GET /")
		w.agent.Kill()
		w.answers(m.URL, 502, "not connected")
		w.agent = w.exit.Join(t, w.api, programs.Client{ID: w.target.ID, AuthCode: w.target.AuthCode})
		w.answers(m.URL, 200, "GET /")

		path := fmt.Sprintf("/api/v1/mappings/%d", m.ID)
		w.api.Do(t, http.MethodPost, path+"/disable", nil, nil)
		w.answers(m.URL, 404, "Nothing is published")
		w.api.Do(t, http.MethodPost, path+"/enable", nil, nil)
		w.answers(m.URL, 200, "GET /")
		w.api.Do(t, http.MethodPut, path, map[string]any{"public_host": "calm-heron"}, nil)
		w.answers(strings.Replace(m.URL, m.Host, "calm-heron", 1), 200, "GET /")
		w.answers(m.URL, 404, "Nothing is published")
		w.api.Do(t, http.MethodDelete, path, nil, nil)
		w.answers(strings.Replace(m.URL, m.Host, "calm-heron", 1), 404, "Nothing is published")
	})
}

// A path belongs to the mapping that has the longest prefix of it, on the borders of
// segments; one that is disabled keeps its path.
func TestPathsOfAHost(t *testing.T) {
	w := embedded(t)
	name := func(name string) int {
		return web(t, func(out http.ResponseWriter, in *http.Request) { fmt.Fprintf(out, "%s:%s", name, in.URL.Path) })
	}
	w.publish(name("root"), map[string]any{"public_host": "otter"})
	app := w.publish(name("app"), map[string]any{"public_host": "otter", "public_path": "/app"})
	w.publish(name("deep"), map[string]any{"public_host": "otter", "public_path": "/app/deep"})
	root := strings.TrimSuffix(app.URL, "/app")
	for path, want := range map[string]string{"/": "root:/", "/app": "app:/app", "/app/": "app:/app/", "/apple": "root:/apple", "/app/x": "app:/app/x",
		"/app/deep/x": "deep:/app/deep/x", "/app/deeper": "app:/app/deeper", "/APP": "root:/APP"} {
		w.answers(root+path, 200, want)
	}
	w.api.Do(t, http.MethodPost, fmt.Sprintf("/api/v1/mappings/%d/disable", app.ID), nil, nil)
	w.answers(root+"/app/x", 404, "")
	w.answers(root+"/app/deep/x", 200, "deep:")
	w.answers(root+"/apple", 200, "root:")
}

// What cannot be had is refused when the mapping is made, with a reason.
func TestRefusedHosts(t *testing.T) {
	w := embedded(t)
	refused := func(status int, code string, more map[string]any) {
		t.Helper()
		w.api.Refused(t, status, code, http.MethodPost, "/api/v1/mappings", w.wanted(1, more))
	}
	w.publish(1, map[string]any{"public_host": "otter"})
	refused(http.StatusConflict, "host_taken", map[string]any{"public_host": "otter"})
	refused(http.StatusUnprocessableEntity, "host_not_verified", map[string]any{"public_host": "shop.example.com"})
	refused(http.StatusUnprocessableEntity, "invalid", map[string]any{"public_host": "not_a_label"})
	refused(http.StatusUnprocessableEntity, "invalid", map[string]any{"public_path": "no-slash"})
	refused(http.StatusUnprocessableEntity, "invalid", map[string]any{"source_client_id": w.target.ID, "local_port": 80})
	refused(http.StatusUnprocessableEntity, "invalid", map[string]any{"protocol": "tcp", "public_host": "otter"})

	none := programs.Serve(t, "--http", "") // given, so that nothing is chosen
	user := none.API.CreateUser(t, "ann")
	target := none.API.CreateClient(t, user.ID, "target")
	none.API.Refused(t, http.StatusConflict, "public_unavailable", http.MethodPost, "/api/v1/mappings", map[string]any{"user_id": user.ID,
		"target_client_id": target.ID, "protocol": "http", "target_host": "127.0.0.1", "target_port": 1})
}

// Of two owners who ask for one host at the same moment, one for HTTP and the other for
// TLS by its name, one gets it, and a freed one
// goes to no other user within the hour.
func TestPublicHostHasOneOwner(t *testing.T) {
	const rounds = 200
	for form, more := range map[string]func() []string{
		"embedded":           func() []string { return nil },
		"postgres and redis": func() []string { return []string{"--postgres", services.Postgres(t), "--redis", services.Redis(t)} },
	} {
		t.Run(form, func(t *testing.T) {
			_, args := settings(t, append(more(), "--tls", "127.0.0.1:0")...)
			s := programs.Serve(t, args...)
			var wanted [2]func(host string) map[string]any
			for i, name := range []string{"ann", "bob"} {
				user := s.API.CreateUser(t, name)
				target := s.API.CreateClient(t, user.ID, "target")
				wanted[i] = func(host string) map[string]any {
					return map[string]any{"user_id": user.ID, "target_client_id": target.ID, "protocol": []string{"http", "tls"}[i], "public_host": host,
						"target_host": "127.0.0.1", "target_port": 1}
				}
			}
			var first, winner int
			for round := range rounds {
				host := fmt.Sprintf("otter-%d", round)
				var got [2]int
				var ids [2]mapping
				var asking sync.WaitGroup
				for i := range wanted {
					asking.Go(func() {
						answer, err := s.API.Call(http.MethodPost, "/api/v1/mappings", wanted[i](host))
						if err != nil {
							t.Error(err)
						}
						if got[i] = answer.Status; got[i] == http.StatusCreated {
							answer.Read(t, &ids[i])
						}
					})
				}
				asking.Wait()
				switch got {
				case [2]int{http.StatusCreated, http.StatusConflict}:
					winner, first = 0, first+1
				case [2]int{http.StatusConflict, http.StatusCreated}:
					winner = 1
				default:
					t.Fatalf("round %d: the answers are %v", round, got)
				}
				if round == rounds-1 {
					s.API.Do(t, http.MethodDelete, fmt.Sprintf("/api/v1/mappings/%d", ids[winner].ID), nil, nil)
					s.API.Refused(t, http.StatusConflict, "host_taken", http.MethodPost, "/api/v1/mappings", wanted[1-winner](host))
					s.API.Do(t, http.MethodPost, "/api/v1/mappings", wanted[winner](host), nil)
				}
			}
			t.Logf("of %d rounds the first owner won %d", rounds, first)
		})
	}
}
