package cluster

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/programs"
)

// outcome is the result of a connection or command of a load.
type outcome struct {
	at     time.Time // when it began
	took   time.Duration
	err    error
	status int    // of a command
	code   string // why it was refused
}

// load repeats something until it is stopped.
type load struct {
	stop chan struct{}
	work sync.WaitGroup
	end  sync.Once

	mu   sync.Mutex
	done []outcome // guarded by mu
}

func newLoad(t *testing.T) *load {
	l := &load{stop: make(chan struct{})}
	t.Cleanup(l.Stop)
	return l
}

// Stop waits until nothing is under way.
func (l *load) Stop() {
	l.end.Do(func() { close(l.stop) })
	l.work.Wait()
}

// every begins do once an interval, whether or not the one before has ended.
func (l *load) every(interval time.Duration, do func() outcome) {
	l.work.Go(func() {
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for {
			select {
			case <-l.stop:
				return
			case <-tick.C:
				l.work.Go(func() { l.note(do) })
			}
		}
	})
}

// inTurn does one after the other, with a pause between them.
func (l *load) inTurn(pause time.Duration, do func() outcome) {
	l.work.Go(func() {
		for {
			l.note(do)
			select {
			case <-l.stop:
				return
			case <-time.After(pause):
			}
		}
	})
}

func (l *load) note(do func() outcome) {
	began := time.Now()
	o := do()
	o.at, o.took = began, time.Since(began)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.done = append(l.done, o)
}

// between gives the results that began in a time, in order; zero times are no bounds.
func (l *load) between(from, to time.Time) []outcome {
	l.mu.Lock()
	defer l.mu.Unlock()
	var some []outcome
	for _, o := range l.done {
		if !o.at.Before(from) && (to.IsZero() || o.at.Before(to)) {
			some = append(some, o)
		}
	}
	slices.SortFunc(some, func(a, b outcome) int { return a.at.Compare(b.at) })
	return some
}

// failed gives the results that are errors.
func failed(all []outcome) []outcome {
	return slices.DeleteFunc(slices.Clone(all), func(o outcome) bool { return o.err == nil })
}

// slowest gives the longest duration of a result.
func slowest(all []outcome) (most time.Duration) {
	for _, o := range all {
		most = max(most, o.took)
	}
	return most
}

// connections makes a new connection through each of the ports, over and over.
func connections(t *testing.T, interval time.Duration, ports ...int) *load {
	l := newLoad(t)
	for _, port := range ports {
		l.every(interval, func() outcome { return outcome{err: echoes(port)} })
	}
	return l
}

// hosts counts the loopback addresses that loads of commands listen on.
var hosts atomic.Int64

// commands changes mappings of its own, in a loop: it makes one, renames and moves it,
// disables and enables it, and deletes every second one. The last command is repeated
// with the same key until it is answered.
func commands(t *testing.T, pause time.Duration, e *ends, service int) *load {
	l := newLoad(t)
	n := hosts.Add(1)
	host := fmt.Sprintf("127.0.%d.%d", 10+n/200, 1+n%200) // nobody else opens ports of this address
	var (
		step, round int
		id          int64
	)
	l.inTurn(pause, func() outcome {
		port := 10000 + 2*round
		method, path, body := http.MethodPost, "/api/v1/mappings", any(nil)
		switch step {
		case 0:
			body = programs.Mapping{UserID: e.user.ID, Protocol: "tcp", Source: e.source.ID, Target: e.target.ID,
				Name: fmt.Sprintf("load-%d", round), LocalHost: host, LocalPort: port, TargetHost: "127.0.0.1", TargetPort: service}
		case 1:
			method, path = http.MethodPut, fmt.Sprintf("/api/v1/mappings/%d", id)
			body = map[string]any{"name": fmt.Sprintf("moved-%d", round), "local_port": port + 1}
		case 2:
			path = fmt.Sprintf("/api/v1/mappings/%d/disable", id)
		case 3:
			path = fmt.Sprintf("/api/v1/mappings/%d/enable", id)
		case 4:
			method, path = http.MethodDelete, fmt.Sprintf("/api/v1/mappings/%d", id)
		}
		answer, err := e.Call(method, path, body, "Idempotency-Key", fmt.Sprintf("load-%d-%d-%d", n, round, step))
		o := outcome{err: err, status: answer.Status}
		if err == nil && answer.Status/100 != 2 {
			o.code = answer.Problem().Code
			o.err = fmt.Errorf("%s %s: %d %s", method, path, answer.Status, answer.Body)
		}
		var made programs.Mapping
		if o.err == nil && step == 0 {
			o.err = json.Unmarshal(answer.Body, &made)
			id = made.ID
		}
		if o.err != nil {
			return o
		}
		if step++; step == 4 && round%2 == 0 || step == 5 {
			step, round = 0, round+1
		}
		return o
	})
	return l
}
