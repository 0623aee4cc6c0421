package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tunnox-net/tunnox/domain"
)

// number reads one series.
func number(t testing.TB, c prometheus.Metric) float64 {
	t.Helper()
	var m dto.Metric
	must(t, c.Write(&m))
	return m.GetCounter().GetValue() + m.GetGauge().GetValue()
}

// flaky executes commands and then loses the answer, or fails before.
type flaky struct {
	Executor
	mu     sync.Mutex
	before []error // for the next submissions, nil = go on
	after  []error
	calls  int
}

func (f *flaky) take(from *[]error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(*from) == 0 {
		return nil
	}
	err := (*from)[0]
	*from = (*from)[1:]
	return err
}

func (f *flaky) Submit(ctx context.Context, s domain.Submission) (domain.Receipt, error) {
	f.mu.Lock()
	f.calls++
	f.mu.Unlock()
	if err := f.take(&f.before); err != nil {
		return domain.Receipt{}, err
	}
	r, err := f.Executor.Submit(ctx, s)
	if lost := f.take(&f.after); lost != nil {
		return domain.Receipt{}, lost
	}
	return r, err
}

// A command whose answer was lost is repeated, and done once.
func TestCallsAreRepeatedAndExecutedOnce(t *testing.T) {
	p := newPlane(t)
	_, a, b := p.pair()
	gone := status.Error(codes.Unavailable, "the connection broke")
	executor := &flaky{Executor: p.executor}
	s := p.serve("", func(c *ServerConfig) { c.Executor = executor })
	metrics := NewClientMetrics()
	client := p.dial([]string{s.address}, func(c *Config) {
		c.RetryPause, c.Metrics, c.CircuitFailures = time.Millisecond, metrics, 100
	})
	ctx := t.Context()

	executor.after = []error{gone, gone}
	r, err := client.Execute(ctx, domain.ClientCommand{ClientID: a, Create: create(a, b, 8000)})
	must(t, err)
	if !r.Duplicate {
		t.Error("the answer that came was not that of a repeat")
	}
	list, err := client.Execute(ctx, domain.ClientCommand{ClientID: a, List: &domain.MappingPage{}})
	if err != nil || len(list.Mappings) != 1 {
		t.Errorf("it was done %d times, %v", len(list.Mappings), err)
	}
	executor.after = []error{gone}
	before, _ := p.head(ctx)
	id, err := client.Register(ctx, domain.Registration{PublicKey: make([]byte, 32)})
	must(t, err)
	after, _ := p.head(ctx)
	if after != before+2 { // the client and its quota
		t.Errorf("registering once made %d records; id %d", after-before, id)
	}
	if n := number(t, metrics.retries); n != 3 {
		t.Errorf("%v retries counted", n)
	}

	// Three retries and no more; refusals are not repeated at all.
	executor.before, executor.calls = []error{gone, gone, gone, gone, gone}, 0
	if _, err = client.Execute(ctx, domain.ClientCommand{ClientID: a, Create: create(a, b, 8001)}); !isUnavailable(err) || executor.calls != 4 {
		t.Errorf("%d attempts, %v", executor.calls, err)
	}
	wantCode(t, err, domain.CodeStoreUnavailable)
	executor.before, executor.calls = nil, 0
	_, err = client.Execute(ctx, domain.ClientCommand{ClientID: a, Create: create(a, b, 8000)})
	wantCode(t, err, domain.CodeListenerTaken)
	if executor.calls != 1 {
		t.Errorf("a refusal was asked for %d times", executor.calls)
	}
	// A failure of the server says nothing of why.
	executor.before = []error{errors.New("pq: password is hunter2")}
	if _, err = client.Execute(ctx, domain.ClientCommand{ClientID: a, Create: create(a, b, 8002)}); err == nil || strings.Contains(err.Error(), "hunter2") || isUnavailable(err) {
		t.Errorf("an internal failure: %v", err)
	}
	// A panic in a call ends the call.
	executor.Executor = nil
	if _, err = client.Execute(ctx, domain.ClientCommand{ClientID: a, Create: create(a, b, 8003)}); err == nil || isUnavailable(err) {
		t.Errorf("a panic: %v", err)
	}
	must(t, second(client.Ping(ctx)))
}

func TestControlPlaneGoesAndComesBack(t *testing.T) {
	p := newPlane(t)
	s := p.serve("")
	metrics := NewClientMetrics()
	client := p.dial([]string{s.address}, func(c *Config) {
		c.RetryPause, c.Timeout, c.CircuitPause, c.Metrics = time.Millisecond, time.Second, 50*time.Millisecond, metrics
	})
	ctx := t.Context()
	must(t, second(client.Ping(ctx)))
	if !client.Reachable() {
		t.Error("not reachable after an answer")
	}
	for round := range 3 {
		s.stop()
		eventually(t, "the circuit opens", func() bool {
			_, err := client.Ping(ctx)
			if !isUnavailable(err) || domain.CodeOf(err) != domain.CodeStoreUnavailable {
				t.Fatalf("away: %v", err)
			}
			return errors.Is(err, errCircuit)
		})
		if client.Reachable() || number(t, metrics.circuits.WithLabelValues("control")) != 1 {
			t.Error("the circuit does not show that it is open")
		}
		began := time.Now()
		for range 1000 {
			_, _ = client.Ping(ctx)
		}
		if d := time.Since(began); d > 2*time.Second {
			t.Errorf("1,000 calls into an open circuit took %v", d)
		}
		s = p.serve(s.address)
		began = time.Now()
		eventually(t, "calls work again", func() bool { return second(client.Ping(ctx)) == nil })
		t.Logf("round %d: back after %v", round, time.Since(began).Round(time.Millisecond))
	}
	if number(t, metrics.circuits.WithLabelValues("control")) != 0 {
		t.Error("the circuit shows open")
	}
}

func TestSeveralControlPlanes(t *testing.T) {
	p := newPlane(t)
	var served [2]atomic.Int64
	count := func(i int) func(*ServerConfig) {
		return func(c *ServerConfig) {
			head := c.Head
			c.Head = func(ctx context.Context) (domain.Position, error) { served[i].Add(1); return head(ctx) }
		}
	}
	one, two := p.serve("", count(0)), p.serve("", count(1))
	// One that refuses, and one that takes connections and says nothing.
	refuses, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	must(t, refuses.Close())
	hangs, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer hangs.Close()
	client := p.dial([]string{hangs.Addr().String(), refuses.Addr().String(), one.address, two.address},
		func(c *Config) { c.RetryPause = time.Millisecond })
	ctx := t.Context()
	eventually(t, "both are used", func() bool {
		must(t, second(client.Ping(ctx)))
		return served[0].Load() > 0 && served[1].Load() > 0
	})
	served[0].Store(0)
	served[1].Store(0)
	for range 100 {
		must(t, second(client.Ping(ctx)))
	}
	if a, b := served[0].Load(), served[1].Load(); a < 40 || b < 40 {
		t.Errorf("of 100 calls %d and %d went to the two", a, b)
	}
	// One drains, under calls: none fails.
	var calling sync.WaitGroup
	stop := make(chan struct{})
	var failed atomic.Int64
	for range 4 {
		calling.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := client.Ping(ctx); err != nil {
					failed.Add(1)
					t.Log(err)
				}
			}
		})
	}
	drained, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	must(t, one.Drain(drained))
	close(stop)
	calling.Wait()
	if failed.Load() != 0 {
		t.Errorf("%d calls failed while one of two control planes drained", failed.Load())
	}
	// And with one gone without a word, likewise.
	p.serve(one.address, count(0))
	served[0].Store(0)
	eventually(t, "it is used again", func() bool {
		must(t, second(client.Ping(ctx)))
		return served[0].Load() > 0
	})
	two.stop()
	for range 50 {
		must(t, second(client.Ping(ctx)))
	}
}

// A connection is made anew from time to time, with the certificate of then.
func TestConnectionsAge(t *testing.T) {
	p := newPlane(t)
	metrics := NewServerMetrics()
	s := p.serve("", func(c *ServerConfig) { c.ConnectionAge, c.Metrics = 50*time.Millisecond, metrics })
	var dials atomic.Int64
	client := p.dial([]string{s.address}, func(c *Config) {
		c.RetryPause = time.Millisecond
		c.Dial = func(ctx context.Context, address string) (net.Conn, error) {
			dials.Add(1)
			return new(net.Dialer).DialContext(ctx, "tcp", address)
		}
	})
	eventually(t, "three connections", func() bool {
		must(t, second(client.Ping(t.Context())))
		return dials.Load() >= 3
	})
}

func TestCallersMayLeave(t *testing.T) {
	p := newPlane(t)
	s := p.serve("", func(c *ServerConfig) {
		c.Head = func(ctx context.Context) (domain.Position, error) { <-ctx.Done(); return 0, ctx.Err() }
	})
	client := p.dial([]string{s.address}, func(c *Config) {
		c.CircuitFailures = 1
		c.Timeout, c.Attempt = 300*time.Millisecond, 100*time.Millisecond
	})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := client.Ping(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the caller's time was up: %v", err)
	}
	if client.circuit.isOpen() {
		t.Error("a caller that left opened the circuit")
	}
	// One that hangs does not take longer than the timeout.
	began := time.Now()
	if _, err := client.Ping(t.Context()); !isUnavailable(err) || time.Since(began) > 5*time.Second {
		t.Errorf("%v after %v", err, time.Since(began))
	}
	if !client.circuit.isOpen() {
		t.Error("a control plane that hangs does not open the circuit")
	}
}

func TestConfigsAreChecked(t *testing.T) {
	p := newPlane(t)
	for name, config := range map[string]Config{
		"no address": {Trust: p.trust("node-001")}, "no port": {Addresses: []string{"host"}, Trust: p.trust("node-001")},
		"no trust": {Addresses: []string{"host:1"}},
	} {
		if c, err := Dial(config); err == nil {
			t.Errorf("%s: dialled", name)
			_ = c.Close()
		}
	}
	_, err := NewServer(ServerConfig{})
	for _, part := range []string{"authority", "join tokens", "log", "head", "executor"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("a server without %s: %v", part, err)
		}
	}
	if _, err := NewLookup(LookupConfig{}); err == nil {
		t.Error("a lookup with nowhere to look")
	}
}

func TestNamesStandForAllTheirAddresses(t *testing.T) {
	p := newPlane(t)
	s := p.serve("")
	_, port, err := net.SplitHostPort(s.address)
	must(t, err)
	r := &resolving{of: resolvers{addresses: []string{"control:" + port, s.address, "gone:1"},
		lookup: func(_ context.Context, host string) ([]string, error) {
			if host == "control" {
				return []string{"127.0.0.1", "10.0.0.2", "::1"}, nil
			}
			return nil, fmt.Errorf("no such host")
		}}}
	got := r.resolve(t.Context())
	want := []string{"10.0.0.2:" + port, s.address, "[::1]:" + port, "gone:1"}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("resolved to %v, want %v", got, want)
	}
	must(t, second(p.dial([]string{"localhost:" + port}).Ping(t.Context())))
}

// Every refusal of the domain arrives as it was.
func TestRefusalsCrossTheWire(t *testing.T) {
	for _, want := range []*domain.Error{
		{Code: domain.CodeInvalid, Message: "No.", Faults: []domain.Fault{{Field: "a", Message: "b"}, {Field: "c\xff", Message: "d"}}},
		{Code: domain.CodeQuotaActive, Message: "Too many."}, {Code: domain.CodeUserNotFound, Message: "x"},
		{Code: domain.CodeListenerTaken, Message: "x"}, {Code: domain.CodeVersionConflict, Message: "x"},
		{Code: domain.CodeStoreUnavailable, Message: "x"}, {Code: domain.CodeClientDisabled, Message: "x"}, {Code: codeJoinRefused, Message: "x"},
	} {
		st, internal := statusOf(fmt.Errorf("deep: %w: secret", want))
		what, err := received(st.Err())
		if internal || what != answered || domain.CodeOf(err) != want.Code || strings.Contains(err.Error(), "secret") ||
			st.Code() == codes.OK || st.Code() == codes.Unknown || st.Code() == codes.Internal {
			t.Errorf("%v arrived as %v (%v, %v)", want, err, what, st.Code())
		}
		got, _ := errors.AsType[*domain.Error](err)
		if got.Message != want.Message || len(got.Faults) != len(want.Faults) {
			t.Errorf("%+v arrived as %+v", want, got)
		}
	}
}
