package usage

import (
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/programs"
)

func TestMain(m *testing.M) { programs.Main(m) }

// account is a user with clients whose agents run.
type account struct {
	*programs.API
	user programs.User
}

func newAccount(t *testing.T, api *programs.API, name string) *account {
	t.Helper()
	return &account{API: api, user: api.CreateUser(t, name)}
}

// limit sets limits of the quota.
func (a *account) limit(t *testing.T, limits map[string]any) {
	t.Helper()
	a.Do(t, http.MethodPut, fmt.Sprintf("/api/v1/users/%d/quota", a.user.ID), limits, nil)
}

// mapping makes a mapping with agents at two servers, and gives its port.
func (a *account) mapping(t *testing.T, name string, source, target *programs.Server, service int) int {
	t.Helper()
	from, to := a.CreateClient(t, a.user.ID, name+" from"), a.CreateClient(t, a.user.ID, name+" to")
	target.Join(t, a.API, to)
	source.Join(t, a.API, from)
	m := a.CreateMapping(t, programs.Mapping{UserID: a.user.ID, Protocol: "tcp", Source: from.ID, Target: to.ID,
		LocalPort: programs.FreePort(t), TargetHost: "127.0.0.1", TargetPort: service})
	return m.LocalPort
}

// used is the account's usage as the API shows it.
type used struct {
	Traffic int64 `json:"current_month_traffic"`
	Open    int64 `json:"connections_open"`
	Month   struct {
		ToTarget    int64 `json:"to_target"`
		ToSource    int64 `json:"to_source"`
		Connections int64 `json:"connections"`
	} `json:"current_month"`
}

func (a *account) used(t *testing.T) (u used) {
	t.Helper()
	a.Do(t, http.MethodGet, fmt.Sprintf("/api/v1/stats/users/%d", a.user.ID), nil, &u)
	return u
}

// flow is a connection through which a service sends, at a pace or as fast as it
// can, and a user reads.
type flow struct {
	sent, received atomic.Int64
	running        sync.WaitGroup
	end            chan struct{}
	ended          atomic.Bool // the user has seen the end
}

// source is a service that sends to everybody who connects. every 0 is no pause.
func (f *flow) source(t *testing.T, piece int, every time.Duration) int {
	t.Helper()
	return programs.Listen(t, func(c *net.TCPConn) {
		for buf := make([]byte, piece); ; {
			n, err := c.Write(buf)
			f.sent.Add(int64(n))
			if err != nil {
				return
			}
			select {
			case <-f.end:
				return
			case <-time.After(every):
			}
		}
	}).Port
}

// read reads what a port gives until it ends.
func (f *flow) read(t *testing.T, port int) {
	t.Helper()
	conn := programs.Dial(t, port)
	f.running.Go(func() {
		defer func() { _ = conn.Close() }()
		for buf := make([]byte, 32<<10); ; {
			n, err := conn.Read(buf)
			f.received.Add(int64(n))
			if err != nil {
				f.ended.Store(true)
				return
			}
		}
	})
}

func newFlow(t *testing.T) *flow {
	f := &flow{end: make(chan struct{})}
	t.Cleanup(f.stop)
	return f
}

// stop ends the service's side and waits until the user has seen the end.
func (f *flow) stop() {
	select {
	case <-f.end:
	default:
		close(f.end)
	}
	f.running.Wait()
}
