// Package tunnels tries programs in the foreground (tunnox tcp, expose, get, forward)
// with the real programs: the first minutes, and everything that is killed in between.
package tunnels

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/programs"
)

func TestMain(m *testing.M) { programs.Main(m) }

const limit = 20 * time.Second

// world is a server with a user, whose machines join it.
type world struct {
	*programs.Server
	t    testing.TB
	user programs.User
}

// newWorld starts a server with public ports.
func newWorld(t testing.TB, args ...string) *world {
	t.Helper()
	first := programs.FreePort(t)
	s := programs.Serve(t, append([]string{"--public-ports", fmt.Sprintf("%d-%d", first, first+9), "--public-address", "127.0.0.1"}, args...)...)
	return worldOf(t, s)
}

func worldOf(t testing.TB, s *programs.Server) *world {
	t.Helper()
	return &world{Server: s, t: t, user: s.API.CreateUser(t, "ann")}
}

// machine is a machine that has joined, with its state directory.
type machine struct {
	w     *world
	name  string
	state string
}

func (w *world) invite() string {
	w.t.Helper()
	var made struct{ Code string }
	w.API.Do(w.t, http.MethodPost, "/api/v1/invites", map[string]any{"user_id": w.user.ID}, &made)
	return made.Code
}

// reachable is a machine that the user's other machines may lead connections to.
func (w *world) reachable(name string) *machine {
	w.t.Helper()
	return w.machine(name, "--reachable")
}

// share makes a share of the first client, and gives its code, which is good no more: it
// has expired after a time or, with 0, is revoked.
func (w *world) share(expires time.Duration) string {
	w.t.Helper()
	var clients struct {
		Items []struct {
			ID int64 `json:"client_id"`
		}
	}
	w.API.Do(w.t, http.MethodGet, "/api/v1/clients?limit=1", nil, &clients)
	wish := map[string]any{"user_id": w.user.ID, "target_client_id": clients.Items[0].ID, "target_host": "127.0.0.1", "target_port": 80, "protocol": "tcp"}
	if expires > 0 {
		wish["expires_at"] = time.Now().Add(expires).UTC()
	}
	var made struct {
		ID   int64 `json:"share_id"`
		Code string
	}
	w.API.Do(w.t, http.MethodPost, "/api/v1/shares", wish, &made)
	if expires == 0 {
		w.API.Do(w.t, http.MethodDelete, fmt.Sprintf("/api/v1/shares/%d", made.ID), nil, nil)
	} else {
		time.Sleep(expires + 100*time.Millisecond) // nothing but time lets it expire
	}
	return made.Code
}

func (w *world) machine(name string, args ...string) *machine {
	w.t.Helper()
	m := &machine{w: w, name: name, state: filepath.Join(w.t.TempDir(), name)}
	join := programs.Start(w.t, "tunnox", nil, append([]string{"join", w.invite(), "--state", m.state, "--name", name}, args...)...)
	if err := join.Wait(limit); err != nil {
		w.t.Fatalf("join: %v\n%s", err, join.Said(1<<10))
	}
	return m
}

// start starts a program of the machine.
func (m *machine) start(args ...string) *programs.Process {
	m.w.t.Helper()
	return programs.Start(m.w.t, "tunnox", nil, append(args, "--state", m.state)...)
}

// tunnel starts a program in the foreground and waits until it is ready.
func (m *machine) tunnel(args ...string) *tunnel {
	m.w.t.Helper()
	p := m.start(append(args, "--json")...)
	return &tunnel{Process: p, ready: readyOf(m.w.t, p)}
}

// tunnel is a program in the foreground with what it said when it was ready.
type tunnel struct {
	*programs.Process
	ready ready
}

type ready struct {
	Address, Listen, Code, URL string
	Expires                    time.Time
}

func readyOf(t testing.TB, p *programs.Process) (r ready) {
	t.Helper()
	line := p.Says(`(?m)^(\{.*\})$`, limit)[1]
	if err := json.Unmarshal([]byte(line), &r); err != nil {
		t.Fatal(err)
	}
	return r
}

// refused runs a program that must end with a status, and gives what it said.
func (m *machine) refused(status int, args ...string) string {
	m.w.t.Helper()
	return refused(m.w.t, status, append(args, "--state", m.state)...)
}

func refused(t testing.TB, status int, args ...string) string {
	t.Helper()
	p := programs.Start(t, "tunnox", nil, args...)
	if got := p.Fails(2 * limit); got != status {
		t.Errorf("%s ended with %d, want %d: %s", strings.Join(args, " "), got, status, p.Said(1<<10))
	}
	return p.Said(4 << 10)
}

// service is an echo with a name before it.
func service(t testing.TB, name string) (port int) {
	return programs.Listen(t, func(c *net.TCPConn) {
		if _, err := io.WriteString(c, name+":"); err == nil {
			programs.Echo(c)
		}
	}).Port
}

// answers waits until an address answers as the service of that name.
func answers(t testing.TB, address, name string) {
	t.Helper()
	programs.Eventually(t, limit, func() error { return ask(address, name) })
}

func ask(address, name string) error {
	conn, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(conn, "hello"); err != nil {
		return err
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		return err
	}
	got, err := io.ReadAll(conn)
	if err == nil && string(got) != name+":hello" {
		err = fmt.Errorf("%s answers %q", address, got)
	}
	return err
}

// silent waits until nothing listens at an address any more.
func silent(t testing.TB, address string) {
	t.Helper()
	programs.Eventually(t, limit, func() error {
		conn, err := net.DialTimeout("tcp", address, 5*time.Second)
		if err == nil {
			_ = conn.Close()
			return fmt.Errorf("%s takes connections", address)
		}
		return nil
	})
}

// mappings gives the ids of all mappings.
func (w *world) mappings() (ids []int64) {
	w.t.Helper()
	var page struct {
		Items []struct {
			ID int64 `json:"mapping_id"`
		}
	}
	w.API.Do(w.t, http.MethodGet, "/api/v1/mappings?limit=100", nil, &page)
	for _, m := range page.Items {
		ids = append(ids, m.ID)
	}
	return ids
}

// left waits until there are so many mappings.
func (w *world) left(n int) {
	w.t.Helper()
	programs.Eventually(w.t, limit, func() error {
		if got := w.mappings(); len(got) != n {
			return fmt.Errorf("there are the mappings %v, want %d", got, n)
		}
		return nil
	})
}

// events gives the actors of all events with a name.
func (w *world) events(name string) (actors []string) {
	w.t.Helper()
	var page struct {
		Items []struct{ Meta struct{ Actor string } }
	}
	w.API.Do(w.t, http.MethodGet, "/api/v1/audit?limit=100&type="+name, nil, &page)
	for _, e := range page.Items {
		actors = append(actors, e.Meta.Actor)
	}
	return actors
}

// stop ends a program as Ctrl-C does: it must end well.
func (t *tunnel) end(tb testing.TB) {
	tb.Helper()
	if err := t.Stop(); err != nil {
		tb.Error(err)
	}
}
