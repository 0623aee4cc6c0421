package flow

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/pace"
	"github.com/tunnox-net/tunnox/test/programs"
)

// TestQuotaUnderConcurrency: 50 creates at once against a limit of 10 leave
// exactly 10, and the others are told why.
func TestQuotaUnderConcurrency(t *testing.T) {
	inBothForms(t, func(t *testing.T, serve func(...string) *programs.Server) {
		s := serve()
		user := s.API.CreateUser(t, "ann")
		client := s.API.CreateClient(t, user.ID, "both ends")
		s.API.Do(t, http.MethodPut, path("/users/%d/quota", user.ID), map[string]any{"max_clients": nil, "max_mappings": 10,
			"max_active_mappings": nil, "max_connections_per_mapping": nil, "total_bandwidth_limit": nil, "monthly_traffic_limit": nil}, nil)
		const callers = 50
		var created, refused atomic.Int64
		var calls sync.WaitGroup
		start := make(chan struct{})
		for i := range callers {
			calls.Go(func() {
				<-start
				answer, err := s.API.Call(http.MethodPost, path("/mappings"), programs.Mapping{UserID: user.ID, Protocol: "tcp",
					Source: client.ID, Target: client.ID, LocalPort: 20000 + i, TargetHost: "127.0.0.1", TargetPort: 80})
				switch {
				case err == nil && answer.Status == http.StatusCreated:
					created.Add(1)
				case err == nil && answer.Status == http.StatusForbidden && answer.Problem().Code == "quota_mappings":
					refused.Add(1)
				default:
					t.Errorf("create %d: %v, %d %s", i, err, answer.Status, answer.Body)
				}
			})
		}
		close(start)
		calls.Wait()
		if created.Load() != 10 || refused.Load() != callers-10 {
			t.Errorf("%d created, %d refused; want 10 and 40", created.Load(), refused.Load())
		}
		if left := programs.All[programs.Mapping](t, s.API, path("/users/%d/mappings", user.ID)); len(left) != 10 {
			t.Errorf("%d mappings are there, want 10", len(left))
		}
	})
}

// TestPushLatency: from the API's answer to the open listener at the agent, over 200
// mappings.
func TestPushLatency(t *testing.T) {
	const mappings, limit = 200, 100 * time.Millisecond
	inBothForms(t, func(t *testing.T, serve func(...string) *programs.Server) {
		p := newPair(t, serve())
		service := programs.Listen(t, programs.Echo).Port
		watch := pace.Measure(t)
		took := make([]time.Duration, 0, mappings)
		for _, port := range programs.FreePorts(t, mappings) {
			p.CreateMapping(t, p.wanted(port, service))
			answered := time.Now()
			for !open(port) {
				if time.Since(answered) > pace.Guard {
					t.Fatalf("port %d is not open after %v", port, pace.Guard)
				}
				time.Sleep(200 * time.Microsecond) // between two looks
			}
			took = append(took, time.Since(answered))
		}
		slices.Sort(took)
		p50, p99 := took[mappings/2], took[mappings*99/100]
		t.Logf("answer to open listener over %d mappings: p50 %v, p99 %v, longest %v", mappings, p50, p99, took[mappings-1])
		if p99 >= watch.Allow(limit) && !pace.Race {
			t.Errorf("p99 is %v, must be below %v", p99, limit)
		}
		if shown := programs.All[programs.Mapping](t, p.API, path("/clients/%d/mappings", p.source.ID)); len(shown) != mappings {
			t.Errorf("the API lists %d mappings, want %d", len(shown), mappings)
		}
	})
}

// TestChurn: after 1,000 connections that end in every way, goroutines, descriptors,
// heap and counters are as before.
func TestChurn(t *testing.T) {
	const connections, atOnce = 1000, 25
	inBothForms(t, func(t *testing.T, serve func(...string) *programs.Server) {
		p := newPair(t, serve("--pprof"))
		m := p.mapping(t, programs.Listen(t, programs.Echo).Port)
		churn := func(n int) {
			t.Helper()
			var work sync.WaitGroup
			var next atomic.Int64
			for range atOnce {
				work.Go(func() {
					for i := next.Add(1); i <= int64(n); i = next.Add(1) {
						if err := oneConnection(m.LocalPort, i); err != nil {
							t.Errorf("connection %d: %v", i, err)
						}
					}
				})
			}
			work.Wait()
		}
		// The first connections fill pools and caches; this is not a leak.
		churn(200)
		p.settled(t)
		before := p.resources(t)
		churn(connections)
		p.settled(t)
		var after resources
		programs.Eventually(t, 10*time.Second, func() error {
			after = p.resources(t)
			return after.beyond(before)
		})
		t.Logf("before %+v", before)
		t.Logf("after  %+v", after)
	})
}

// oneConnection uses and ends a connection in one of five ways.
func oneConnection(port int, i int64) error {
	c, err := programs.DialPort(port)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return err
	}
	switch i % 5 {
	case 0: // a question, a half-close, the whole answer
		return exchange(c, fmt.Sprint(i))
	case 1: // closed without a word
	case 2: // a reset in the middle
		if _, err := c.Write(make([]byte, 100_000)); err != nil {
			return err
		}
		return c.SetLinger(0)
	case 3: // closed with an answer unread
		_, err := c.Write([]byte("hello"))
		return err
	case 4: // an echo, then closed
		if _, err := c.Write([]byte("hello")); err != nil {
			return err
		}
		_, err := c.Read(make([]byte, 5))
		return err
	}
	return nil
}

// exchange sends a question and its end, and compares the echo.
func exchange(c *net.TCPConn, question string) error {
	if _, err := io.WriteString(c, question); err != nil {
		return err
	}
	if err := c.CloseWrite(); err != nil {
		return err
	}
	answer, err := io.ReadAll(c)
	if err == nil && string(answer) != question {
		err = fmt.Errorf("the echo of %q is %q", question, answer)
	}
	return err
}

// resources are numbers that must not grow.
type resources struct {
	goroutines, heapKB       float64
	server, source, target   int   // descriptors
	sourceRSSkB, targetRSSkB int64 // of the agents
}

// settled waits until no stream lives.
func (p *pair) settled(t *testing.T) {
	t.Helper()
	programs.Eventually(t, 15*time.Second, func() error {
		n, err := p.server.Metric("tunnox_streams_active")
		if err == nil && n != 0 {
			err = fmt.Errorf("%v streams are still there", n)
		}
		return err
	})
}

func (p *pair) resources(t *testing.T) resources {
	t.Helper()
	// After a garbage collection the heap contains only data in use.
	p.server.Profile(t, "heap?gc=1")
	var r resources
	var err error
	if r.goroutines, err = p.server.Metric("go_goroutines"); err != nil {
		t.Fatal(err)
	}
	heap, err := p.server.Metric("go_memstats_heap_alloc_bytes")
	if err != nil {
		t.Fatal(err)
	}
	r.heapKB = heap / 1024
	for process, n := range map[*programs.Process]*int{p.server.Process: &r.server, p.sourceAgent: &r.source, p.targetAgent: &r.target} {
		if *n, err = process.Descriptors(); err != nil {
			t.Fatal(err)
		}
	}
	for process, kb := range map[*programs.Process]*int64{p.sourceAgent: &r.sourceRSSkB, p.targetAgent: &r.targetRSSkB} {
		if *kb, err = process.Status("status", "VmRSS"); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

// beyond gives the numbers that grew more than noise: idle HTTP connections of this
// test, timers and the collector's slack.
func (r resources) beyond(before resources) error {
	switch {
	case r.goroutines > before.goroutines+10:
		return fmt.Errorf("goroutines grew from %v to %v", before.goroutines, r.goroutines)
	case r.heapKB > before.heapKB+4096 && !pace.Race:
		return fmt.Errorf("heap grew from %.0f to %.0f kB", before.heapKB, r.heapKB)
	case r.server > before.server+5 || r.source > before.source+3 || r.target > before.target+3:
		return fmt.Errorf("descriptors grew from %+v to %+v", before, r)
	case !pace.Race && (r.sourceRSSkB > before.sourceRSSkB+16<<10 || r.targetRSSkB > before.targetRSSkB+16<<10):
		return fmt.Errorf("agents' memory grew from %+v to %+v", before, r)
	}
	return nil
}
