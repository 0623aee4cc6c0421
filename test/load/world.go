package load

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/tunnox-net/tunnox/test/programs"
)

const prefix = "/api/v1"

// World is the set of accounts that callers ask about. Each caller has an account and
// an API key of its own.
type World struct {
	Callers  []*Caller
	accounts []*account
}

// account belongs to one caller: what it reads, and where its writes are.
type account struct {
	user     int64
	paths    []string // of single resources that stay
	contents []string // what the answer for each path must contain
	client   int64    // a client that stays
	random   *rand.Rand

	step, port  int
	made, rule  int64  // the ids that the last writes have made
	clientPath  string // path of the made client
	mappingPath string // path of the made mapping
}

// Populate makes accounts, each with a key, clients and mappings, and a connection for
// each account. The connections end with the test.
func Populate(t testing.TB, api *programs.API, callers, clients int) *World {
	t.Helper()
	w := &World{Callers: make([]*Caller, callers), accounts: make([]*account, callers)}
	address := strings.TrimPrefix(api.URL, "http://")
	name := fmt.Sprintf("load-%x", rand.Uint32())
	var making sync.WaitGroup
	var mu sync.Mutex
	var failed error // guarded by mu
	for i := range callers {
		making.Go(func() {
			caller, a, err := makeAccount(api, address, fmt.Sprintf("%s-%d", name, i), clients)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed = err
				return
			}
			w.Callers[i], w.accounts[i] = caller, a
		})
	}
	making.Wait()
	t.Cleanup(func() {
		for _, c := range w.Callers {
			if c != nil {
				_ = c.Close()
			}
		}
	})
	if failed != nil {
		t.Fatal(failed)
	}
	return w
}

func makeAccount(api *programs.API, address, name string, clients int) (*Caller, *account, error) {
	var user programs.User
	if err := post(api, "/users", map[string]any{"username": name, "email": name + "@example.org"}, &user); err != nil {
		return nil, nil, err
	}
	var key struct{ Key string }
	if err := post(api, "/keys", map[string]any{"user_id": user.ID, "name": "load"}, &key); err != nil {
		return nil, nil, err
	}
	a := &account{user: user.ID, random: rand.New(rand.NewPCG(uint64(user.ID), 1)), port: 20000}
	a.add(fmt.Sprintf("/users/%d", user.ID), fmt.Sprintf(`"user_id":%d,`, user.ID))
	for i := range clients {
		var c programs.Client
		if err := post(api, "/clients", map[string]any{"user_id": user.ID, "client_name": fmt.Sprintf("client %d", i)}, &c); err != nil {
			return nil, nil, err
		}
		a.add(fmt.Sprintf("/clients/%d", c.ID), fmt.Sprintf(`"client_id":%d,`, c.ID))
		if i == 0 {
			a.client = c.ID
		}
		var m programs.Mapping
		if err := post(api, "/mappings", programs.Mapping{UserID: user.ID, Protocol: "tcp", Source: c.ID, Target: a.client,
			LocalPort: 8080, TargetHost: "127.0.0.1", TargetPort: 80}, &m); err != nil {
			return nil, nil, err
		}
		a.add(fmt.Sprintf("/mappings/%d", m.ID), fmt.Sprintf(`"mapping_id":%d,`, m.ID))
	}
	caller, err := Dial(address, key.Key)
	return caller, a, err
}

func post(api *programs.API, path string, body, into any) error {
	answer, err := api.Call(http.MethodPost, prefix+path, body)
	if err != nil {
		return err
	}
	if answer.Status != http.StatusCreated {
		return &wrongAnswer{"POST " + path, answer.Status, string(answer.Body)}
	}
	return json.Unmarshal(answer.Body, into)
}

func (a *account) add(path, content string) {
	a.paths, a.contents = append(a.paths, prefix+path), append(a.contents, content)
}

// Read reads one user, client or mapping, drawn from all that the caller has.
func (w *World) Read(caller int, c *Caller) error {
	a := w.accounts[caller]
	// One third each, although there are many clients and mappings and only one user.
	i := 0
	if kind := a.random.IntN(3); kind > 0 {
		i = 2*a.random.IntN(len(a.paths)/2) + kind
	}
	status, answer, err := c.Do(http.MethodGet, a.paths[i], nil)
	if err != nil {
		return fmt.Errorf("GET %s: %w", a.paths[i], err)
	}
	if status != http.StatusOK || !bytes.Contains(answer, []byte(a.contents[i])) {
		return &wrongAnswer{"GET " + a.paths[i], status, string(answer)}
	}
	return nil
}

// Both writes once in ten calls and reads otherwise.
func (w *World) Both(caller int, c *Caller) error {
	if w.accounts[caller].random.IntN(10) == 0 {
		return w.Write(caller, c)
	}
	return w.Read(caller, c)
}

// Write makes the next of eight writes, which together change nothing: a client and a
// mapping from it are made, changed, disabled, enabled and deleted.
func (w *World) Write(caller int, c *Caller) error {
	a := w.accounts[caller]
	step := a.step % 8
	a.step++
	switch step {
	case 0:
		return a.make(c, "/clients", `{"client_name":"a client of the load"}`, "client_id", &a.made, &a.clientPath)
	case 1:
		a.port = 20000 + (a.port-20000+1)%40000
		return a.make(c, "/mappings", fmt.Sprintf(`{"source_client_id":%d,"target_client_id":%d,"protocol":"tcp","local_port":%d,"target_host":"127.0.0.1","target_port":80}`,
			a.made, a.client, a.port), "mapping_id", &a.rule, &a.mappingPath)
	case 2:
		return a.change(c, http.MethodPut, a.mappingPath, `{"name":"a mapping of the load"}`)
	case 3:
		return a.change(c, http.MethodPost, a.mappingPath+"/disable", "")
	case 4:
		return a.change(c, http.MethodPost, a.mappingPath+"/enable", "")
	case 5:
		return a.change(c, http.MethodPut, a.clientPath, `{"client_desc":"under the stairs"}`)
	case 6:
		return a.change(c, http.MethodDelete, a.mappingPath, "")
	}
	return a.change(c, http.MethodDelete, a.clientPath, "")
}

// make makes something and stores its id and path.
func (a *account) make(c *Caller, path, body, field string, id *int64, at *string) error {
	status, answer, err := c.Do(http.MethodPost, prefix+path, []byte(body))
	if err != nil {
		return fmt.Errorf("POST %s: %w", path, err)
	}
	if status != http.StatusCreated {
		a.step = 0
		return &wrongAnswer{"POST " + path, status, string(answer)}
	}
	_, text, _ := bytes.Cut(answer, []byte(`"`+field+`":`))
	if _, err := fmt.Sscan(string(text[:min(len(text), 20)]), id); err != nil {
		return &wrongAnswer{"POST " + path, status, string(answer)}
	}
	*at = fmt.Sprintf("%s%s/%d", prefix, path, *id)
	return nil
}

func (a *account) change(c *Caller, method, path, body string) error {
	var text []byte
	if body != "" {
		text = []byte(body)
	}
	status, answer, err := c.Do(method, path, text)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	if status/100 != 2 {
		a.step = 0
		return &wrongAnswer{method + " " + path, status, string(answer)}
	}
	return nil
}
