package forwarder_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/test/pace"
	"github.com/tunnox-net/tunnox/wire"
	"github.com/tunnox-net/tunnox/wire/wirepb"
)

// commands is a control plane that answers when it is told to.
type commands struct {
	mu     sync.Mutex
	keys   []string
	came   chan domain.ClientCommand
	answer chan error // nil in it = done
}

func newCommands() *commands {
	return &commands{came: make(chan domain.ClientCommand, 100), answer: make(chan error, 100)}
}

func (c *commands) Execute(ctx context.Context, command domain.ClientCommand) (domain.ClientResult, error) {
	c.mu.Lock()
	c.keys = append(c.keys, command.Key)
	c.mu.Unlock()
	c.came <- command
	select {
	case err := <-c.answer:
		return domain.ClientResult{Mappings: []domain.Versioned[domain.Mapping]{{State: domain.Mapping{ID: command.Delete.ID}}}}, err
	case <-ctx.Done():
		return domain.ClientResult{}, ctx.Err()
	}
}

// next gives the command that comes next.
func (c *commands) next(t *testing.T) domain.ClientCommand {
	t.Helper()
	select {
	case command := <-c.came:
		return command
	case <-time.After(pace.Guard):
		t.Fatal("no command comes")
		return domain.ClientCommand{}
	}
}

func remove(id int64) *wirepb.Command {
	return &wirepb.Command{Command: &wirepb.Command_DeleteMapping{DeleteMapping: &wirepb.DeleteMapping{MappingId: id}}}
}

// commanding is a world whose forwarder has commands executed.
func commanding(t *testing.T) (*world, *commands, *running, client) {
	w := newWorld(t, "tls")
	c := newCommands()
	w.current().stop()
	w.commander = c
	w.start()
	who := w.client(w.user)
	return w, c, w.agent(who), who
}

// A command whose session ends before its result is asked for again over the
// next session, with the same key.
func TestACommandOutlivesItsSession(t *testing.T) {
	t.Parallel()
	w, c, a, who := commanding(t)
	type result struct {
		*wirepb.Result
		err error
	}
	done := make(chan result, 1)
	ctx, cancel := context.WithTimeout(t.Context(), pace.Guard)
	defer cancel()
	go func() {
		r, err := a.Do(ctx, remove(1001))
		done <- result{r, err}
	}()
	first := c.next(t)
	if first.ClientID != who.id || first.Delete == nil || first.Delete.ID != 1001 || first.Key == "" || first.Request == "" || first.Source == "" {
		t.Errorf("asked %+v", first)
	}
	w.current().stop() // in the middle
	w.start()
	second := c.next(t)
	c.answer <- nil
	r := <-done
	if r.err != nil || r.GetCode() != "" || len(r.Mappings) != 1 || r.Mappings[0].GetMappingId() != 1001 {
		t.Fatalf("%v, %v", r.Result, r.err)
	}
	if second.Key != first.Key {
		t.Errorf("the repeat has key %s, the first %s", second.Key, first.Key)
	}
}

// An agent, which anybody may be, does not keep the control plane busy with nothing
// but its commands.
func TestCommandsComeAtARate(t *testing.T) {
	t.Parallel()
	_, _, a, _ := commanding(t)
	ctx, cancel := context.WithTimeout(t.Context(), pace.Guard)
	defer cancel()
	const atOnce, most = 100, 2000
	for n := range most {
		r, err := a.Do(ctx, &wirepb.Command{})
		if err != nil {
			t.Fatal(err)
		}
		if r.GetCode() == string(wire.TooMany) {
			if n < atOnce {
				t.Errorf("refused after %d", n)
			}
			return
		}
	}
	t.Errorf("%d commands, one behind the other, and none refused", most)
}

// Commands wait for the control plane beside everything else, a few at a time, and
// end with a code whatever becomes of it.
func TestCommandsAreBounded(t *testing.T) {
	t.Parallel()
	w, c, a, _ := commanding(t)
	ctx, cancel := context.WithTimeout(t.Context(), pace.Guard)
	defer cancel()
	codes := make(chan string, 100)
	const most = 8
	for range most {
		go func() {
			r, err := a.Do(ctx, remove(1))
			if err != nil {
				codes <- err.Error()
				return
			}
			codes <- r.GetCode()
		}()
	}
	for range most {
		c.next(t)
	}
	if r, err := a.Do(ctx, remove(2)); err != nil || r.GetCode() != string(wire.TooMany) {
		t.Errorf("one more: %v, %v", r, err)
	}
	source, _, m := w.pair(echo(t)) // meanwhile the agent's forwarder goes on
	w.settled(source)
	w.listening(m)
	c.answer <- &domain.Error{Code: domain.CodeQuotaMappings, Message: "no"}
	c.answer <- errors.New("connection refused to 10.0.0.7")
	for range most - 2 {
		c.answer <- nil
	}
	got := map[string]int{}
	for range most {
		got[<-codes]++
	}
	if got["quota_mappings"] != 1 || got["store_unavailable"] != 1 || got[""] != most-2 {
		t.Errorf("codes are %v", got)
	}
	if r, err := a.Do(ctx, &wirepb.Command{}); err != nil || r.GetCode() != string(wire.Malformed) {
		t.Errorf("nothing: %v, %v", r, err)
	}
}

// Without a control plane it is told so.
func TestCommandsNeedAControlPlane(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "memory")
	a := w.agent(w.client(w.user))
	ctx, cancel := context.WithTimeout(t.Context(), pace.Guard)
	defer cancel()
	if r, err := a.Do(ctx, remove(1)); err != nil || r.GetCode() != "store_unavailable" {
		t.Errorf("%v, %v", r, err)
	}
}
