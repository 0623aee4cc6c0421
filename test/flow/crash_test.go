package flow

import (
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/test/pace"
	"github.com/tunnox-net/tunnox/test/programs"
	"github.com/tunnox-net/tunnox/test/truth"
)

// order is a command of the load: its key, its request, and its result.
type order struct {
	key, path, name string
	body            any
	answer          programs.Answer
	acknowledged    bool
}

// send sends the order. If the server has ended, the order stays unacknowledged.
func (o *order) send(api *programs.API) error {
	answer, err := api.Call(http.MethodPost, o.path, o.body, "Idempotency-Key", o.key)
	if err != nil {
		return err
	}
	if answer.Status != http.StatusCreated {
		return fmt.Errorf("%s of %s: %d %s", o.path, o.name, answer.Status, answer.Body)
	}
	o.answer, o.acknowledged = answer, true
	return nil
}

// id gives the id of the created resource in the answer.
func (o *order) id(t *testing.T) int64 {
	t.Helper()
	var made struct {
		ClientID  int64 `json:"client_id"`
		MappingID int64 `json:"mapping_id"`
	}
	o.answer.Read(t, &made)
	if made.MappingID != 0 {
		return made.MappingID
	}
	return made.ClientID
}

// TestKillUnderLoad: kill -9 of the server under a load of commands. After the restart
// every acknowledged command is in the log once, the others are there once after a
// retry with their key, agents are connected again without help, bytes flow, and the
// API shows the fold of the log.
func TestKillUnderLoad(t *testing.T) {
	inBothForms(t, func(t *testing.T, serve func(...string) *programs.Server) {
		const callers, enough, backWithin = 8, 300, 5 * time.Second
		s := serve()
		p := newPair(t, s)
		m := p.mapping(t, programs.Listen(t, answering("svc")).Port)
		waitAnswer(t, m.LocalPort, "svc:before")
		live := programs.Dial(t, m.LocalPort)
		expect(t, live, "svc:")

		orders := make([][]*order, callers)
		var acknowledged atomic.Int64
		var load sync.WaitGroup
		for caller := range callers {
			load.Go(func() {
				for i := 0; ; i++ {
					o := p.order(caller, i)
					orders[caller] = append(orders[caller], o)
					if err := o.send(p.API); err != nil {
						return // the server has ended; a refusal shows below, where the order is sent again
					}
					acknowledged.Add(1)
				}
			})
		}
		programs.Eventually(t, 30*time.Second, func() error {
			if n := acknowledged.Load(); n < enough {
				return fmt.Errorf("%d commands were acknowledged", n)
			}
			return nil
		})
		s.Kill()
		load.Wait()
		ended(t, live) // both ends learn of it

		s.Restart(t)
		watch := pace.Measure(t)
		ready := time.Now()
		waitAnswer(t, m.LocalPort, "svc:after")
		back := time.Since(ready)
		t.Logf("%d commands acknowledged before kill -9; bytes flow %v after the server was ready", acknowledged.Load(), back.Round(time.Millisecond))
		if back > watch.Allow(backWithin) && !pace.Race {
			t.Errorf("agents were back after %v, want %v", back, backWithin)
		}
		p.WaitOnline(t, p.source.ID)
		p.WaitOnline(t, p.target.ID)
		if p.sourceAgent.Exited() || p.targetAgent.Exited() {
			t.Error("an agent ended with the server")
		}
		p.checkOrders(t, orders)
		p.checkReadModels(t)
	})
}

// order makes the i-th order of a caller: clients, and a mapping in every third.
func (p *pair) order(caller, i int) *order {
	o := &order{name: fmt.Sprintf("load-%d-%d", caller, i)}
	o.key = "key-" + o.name
	if i%3 == 2 {
		o.path = path("/mappings")
		wanted := p.wanted(1024+caller*5000+i, 9)
		wanted.Source, wanted.Name = p.target.ID, o.name
		wanted.LocalHost = "127.0.0.3" // not among the ports that other tests use
		o.body = wanted
		return o
	}
	o.path = path("/clients")
	o.body = map[string]any{"user_id": p.user.ID, "client_name": o.name}
	return o
}

// checkOrders sends every order once more: an acknowledged one gets its first answer
// again, the others succeed now. Then each must be in the log exactly once.
func (p *pair) checkOrders(t *testing.T, orders [][]*order) {
	t.Helper()
	for _, of := range orders {
		for _, o := range of {
			first := *o
			if err := o.send(p.API); err != nil {
				t.Fatalf("again: %v", err)
			}
			if first.acknowledged && (first.id(t) != o.id(t) || o.answer.Header.Get("Idempotency-Replayed") != "true") {
				t.Errorf("%s was acknowledged as %s, is now %s", o.name, first.answer.Body, o.answer.Body)
			}
		}
	}
	created := map[string][]domain.StreamID{}
	for _, r := range p.log(t).Records {
		var data struct{ Name string }
		if r.Name != "client_created" && r.Name != "mapping_created" {
			continue
		}
		if err := json.Unmarshal(r.Data, &data); err != nil {
			t.Fatal(err)
		}
		created[data.Name] = append(created[data.Name], r.Stream)
	}
	for _, of := range orders {
		for _, o := range of {
			if streams := created[o.name]; len(streams) != 1 || streams[0].Number() != o.id(t) {
				t.Errorf("%s with id %d is in the log as %v", o.name, o.id(t), streams)
			}
		}
	}
}

// log reads the whole log.
func (p *pair) log(t *testing.T) *truth.Log {
	t.Helper()
	log, err := truth.Read(p.API)
	if err != nil {
		t.Fatal(err)
	}
	return log
}

// checkReadModels compares every list and quota of the API with the fold of the log.
func (p *pair) checkReadModels(t *testing.T) {
	t.Helper()
	log := p.log(t)
	if err := log.Shown(p.API); err != nil {
		t.Error(err)
	}
	t.Logf("%v, which the API shows", log)
}
