package flow

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/pace"
	"github.com/tunnox-net/tunnox/test/programs"
)

// laneBytes go each way over a lane; fewer under the race detector.
var laneBytes = map[bool]int64{false: 256 << 20, true: 16 << 20}[pace.Race]

// sealedPair is a pair whose agents have each other's keys. The arguments are for the
// source agent and the target agent.
func sealedPair(t *testing.T, s *programs.Server, source, target []string) *pair {
	t.Helper()
	p := &pair{API: s.API, server: s, user: s.API.CreateUser(t, "ann")}
	p.source, p.target = s.API.CreateClient(t, p.user.ID, "source"), s.API.CreateClient(t, p.user.ID, "target")
	here, there := t.TempDir(), t.TempDir()
	peer := func(c programs.Client, state string) []string {
		return []string{"--peer-key", fmt.Sprintf("%d=%v", c.ID, keyIn(t, state, c))}
	}
	toTarget, toSource := peer(p.target, there), peer(p.source, here)
	p.targetAgent = p.keyed(t, p.target, there, append(toSource, target...)...)
	p.sourceAgent = p.keyed(t, p.source, here, append(toTarget, source...)...)
	return p
}

// sealedMapping is a mapping that is encrypted from end to end.
func (p *pair) sealedMapping(t *testing.T, targetPort int) programs.Mapping {
	t.Helper()
	m := p.wanted(programs.FreePort(t), targetPort)
	m.Encryption = "e2e"
	m = p.CreateMapping(t, m)
	waitOpen(t, m.LocalPort)
	return m
}

// onLanes waits until so many lanes are joined at the server.
func (p *pair) onLanes(t *testing.T, want float64) {
	t.Helper()
	programs.Eventually(t, 20*time.Second, func() error {
		n, err := p.server.Metric(`tunnox_lanes{state="joined"}`)
		if err == nil && n != want {
			err = fmt.Errorf("%v lanes are joined, want %v", n, want)
		}
		return err
	})
}

// A quarter of a gigabyte each way at once over lanes: every byte arrives unchanged, each side's end
// too, and the bytes count as they do without lanes.
func TestLanesCarryBulk(t *testing.T) {
	inBothForms(t, func(t *testing.T, serve func(...string) *programs.Server) {
		p := sealedPair(t, serve(), nil, nil)
		served := make(chan error, 1)
		service := programs.Listen(t, func(c *net.TCPConn) {
			if _, err := io.ReadFull(c, make([]byte, 1)); err == nil { // not the connection that waited for the listener
				served <- transfer(c, laneBytes, seed(1, 1), seed(1, 0))
			}
		})
		m := p.sealedMapping(t, service.Port)
		counted := func() (n float64) {
			n, err := p.server.Sum("tunnox_bytes_transferred_total")
			if err != nil {
				t.Error(err)
			}
			return n
		}
		before := counted()
		c := programs.Dial(t, m.LocalPort)
		if _, err := c.Write([]byte{1}); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if err := errors.Join(transfer(c, laneBytes, seed(1, 0), seed(1, 1)), <-served); err != nil {
			t.Fatal(err)
		}
		t.Logf("%d bytes each way in %v", laneBytes, time.Since(began))
		if n, err := p.server.Metric(`tunnox_lanes_total{outcome="joined"}`); err != nil || n != 1 {
			t.Errorf("%v pairs of lanes were joined, %v", n, err)
		}
		p.onLanes(t, 0)
		// Records are a little longer than what is in them.
		if n, least := counted()-before, 2*float64(laneBytes); n < least || n > 1.02*least {
			t.Errorf("%v bytes were counted, of %v", n, least)
		}
		// The account is charged for what the forwarder has counted.
		var used struct {
			Month struct {
				ToTarget int64 `json:"to_target"`
				ToSource int64 `json:"to_source"`
			} `json:"current_month"`
		}
		programs.Eventually(t, 20*time.Second, func() error {
			p.API.Do(t, http.MethodGet, path("/stats/users/%d", p.user.ID), nil, &used)
			if got, want := float64(used.Month.ToTarget+used.Month.ToSource), counted(); got != want {
				return fmt.Errorf("the account has %v bytes, the forwarder %v", got, want)
			}
			return nil
		})
	})
}

// What is on a lane ends with what it is of, at both ends and never as if all had come: a
// deleted mapping within a second, and the death of each of the three programs.
func TestLanesEndAtOnce(t *testing.T) {
	for name, tt := range map[string]struct {
		end   func(t *testing.T, p *pair, m programs.Mapping)
		limit time.Duration
	}{
		"mapping deleted": {func(t *testing.T, p *pair, m programs.Mapping) {
			p.API.Do(t, http.MethodDelete, path("/mappings/%d", m.ID), nil, nil)
		}, time.Second},
		"source agent killed": {func(_ *testing.T, p *pair, _ programs.Mapping) { p.sourceAgent.Kill() }, 5 * time.Second},
		"target agent killed": {func(_ *testing.T, p *pair, _ programs.Mapping) { p.targetAgent.Kill() }, 5 * time.Second},
		"server killed":       {func(_ *testing.T, p *pair, _ programs.Mapping) { p.server.Kill() }, 5 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			p := sealedPair(t, programs.Serve(t), nil, nil)
			ended := make(chan error, 2)
			flood := func(c *net.TCPConn) {
				wrote := make(chan error, 1)
				go func() {
					_, err := io.Copy(c, zeros{})
					wrote <- err
				}()
				_, err := io.Copy(io.Discard, c)
				if failed := <-wrote; err == nil && errors.Is(failed, syscall.ECONNRESET) {
					err = failed // the system tells of a reset once, to the reader or to the writer
				}
				ended <- err
			}
			service := programs.Listen(t, func(c *net.TCPConn) {
				if _, err := io.ReadFull(c, make([]byte, 1)); err == nil {
					flood(c)
				}
			})
			m := p.sealedMapping(t, service.Port)
			c := programs.Dial(t, m.LocalPort)
			if _, err := c.Write([]byte{1}); err != nil {
				t.Fatal(err)
			}
			go flood(c)
			p.onLanes(t, 2)
			watch := pace.Measure(t)
			began := time.Now()
			tt.end(t, p, m)
			for range 2 {
				select {
				case err := <-ended:
					if err == nil {
						t.Error("one end took it for the end of the data")
					}
				case <-time.After(pace.Guard):
					t.Fatal("one end goes on")
				}
			}
			if d := time.Since(began); d > watch.Allow(tt.limit) {
				t.Errorf("that took %v", d)
			}
		})
	}
}

// zeros is a source without an end.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }

// An agent without lanes and one with them carry bulk in their sessions. TUNNOX_TEST_OLD
// names a program of an older release to be that agent; without it, the agent is told to
// make no lanes.
func TestLanesNeedBothAgents(t *testing.T) {
	for name, side := range map[string]int{"old source": 0, "old target": 1} {
		t.Run(name, func(t *testing.T) {
			p := sealedPair(t, programs.Serve(t), [][]string{{"--lanes=false"}, nil}[side], [][]string{nil, {"--lanes=false"}}[side])
			if old := os.Getenv("TUNNOX_TEST_OLD"); old != "" {
				p.replace(t, side, old)
			}
			service := programs.Listen(t, programs.Echo)
			m := p.sealedMapping(t, service.Port)
			c := programs.Dial(t, m.LocalPort)
			const size = 8 << 20
			if err := transfer(c, size, seed(1, 0), seed(1, 0)); err != nil {
				t.Fatal(err)
			}
			if n, err := p.server.Sum("tunnox_lanes_total"); err != nil || n != 0 {
				t.Errorf("%v lanes were made, %v", n, err)
			}
		})
	}
}

// replace ends an agent and starts an older program with its state and its key.
func (p *pair) replace(t *testing.T, side int, program string) {
	t.Helper()
	agents, clients := []**programs.Process{&p.sourceAgent, &p.targetAgent}, []programs.Client{p.source, p.target}
	args := (*agents[side]).Args()
	if err := (*agents[side]).Stop(); err != nil {
		t.Fatal(err)
	}
	var kept []string
	for _, arg := range args {
		if arg != "--lanes=false" {
			kept = append(kept, arg)
		}
	}
	path, err := filepath.Abs(program)
	if err != nil {
		t.Fatal(err)
	}
	*agents[side] = programs.Start(t, path, nil, kept...)
	p.API.WaitOnline(t, clients[side].ID)
}
