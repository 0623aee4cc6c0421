package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tunnox-net/tunnox/seal"
	"github.com/tunnox-net/tunnox/wait"
	"github.com/tunnox-net/tunnox/wire/wirepb"
)

// errNoKey means that this agent has no key.
var errNoKey = errors.New("this agent has no key of its own, and encrypts nothing from end to end")

// ownKeyEvery is how often an agent asks whether the log still has its own key as the
// newest: somebody else may have announced one in its name.
const ownKeyEvery = 6 * time.Hour

// keepKey announces this agent's key whenever the server's log does not have it, until ctx
// ends.
func (a *Agent) keepKey(ctx context.Context) {
	again := wait.Backoff{First: 200 * time.Millisecond, Most: 30 * time.Second}
	tick := time.NewTicker(ownKeyEvery)
	defer tick.Stop()
	for ctx.Err() == nil {
		id, ok := a.registeredFor(ctx)
		if !ok {
			return
		}
		_, _, changed := a.sessions.pick(nil)
		err := a.proveOwn(ctx, id)
		switch {
		case err == nil:
			again.Reset()
			select {
			case <-a.seals.poke:
			case <-tick.C:
			case <-ctx.Done():
			}
		case errors.Is(err, errNoProofs): // until there is another session, which may be at a newer server
			a.log.Debug("this agent's key cannot be announced", "reason", err)
			select {
			case <-changed:
			case <-ctx.Done():
			}
		default:
			a.log.Debug("this agent's key is not announced yet", "reason", err)
			again.Wait(ctx)
		}
	}
}

// announce announces the key unless it was announced.
func (s *seals) announce() {
	select {
	case s.poke <- struct{}{}:
	default: // it is on its way already
	}
}

// loggedIn announces the key of an agent whose client has just got its id.
func (s *seals) loggedIn(id int64) {
	if s == nil || s.proofs == nil {
		return
	}
	if key, _, ok := s.proofs.key(id); !ok || key != s.keys.wanted() {
		s.announce()
	}
}

// proveOwn announces the agent's key if the log does not have it as the newest one, and
// waits for the proof that it has.
func (a *Agent) proveOwn(ctx context.Context, id int64) error {
	p := a.seals.proofs
	if _, err := p.refresh(ctx, 0, id); err != nil {
		return err
	}
	wanted := a.seals.keys.wanted()
	if key, _, ok := p.key(id); ok && key == wanted {
		return nil
	}
	result, err := a.Do(ctx, &wirepb.Command{Command: &wirepb.Command_AnnounceKey{AnnounceKey: &wirepb.AnnounceKey{StaticKey: wanted[:]}}})
	if err != nil {
		return err
	}
	if code := result.GetCode(); code != "" {
		return fmt.Errorf("announce a key: %s [%s]", result.GetMessage(), code)
	}
	if _, err := p.refresh(ctx, 0, id); err != nil {
		return err
	}
	if key, _, ok := p.key(id); !ok || key != wanted {
		return errors.New("the key is announced and not under a checkpoint yet")
	}
	return nil
}

// RotateKey gives the agent another key, and waits until the server's log is proven to have
// it. Until then the present one counts.
func (a *Agent) RotateKey(ctx context.Context) (seal.PublicKey, error) {
	if a.seals == nil || a.seals.proofs == nil {
		return seal.PublicKey{}, errNoKey
	}
	next, err := a.seals.keys.rotate()
	if err != nil {
		return seal.PublicKey{}, err
	}
	a.seals.announce()
	for a.seals.keys.Public() != next {
		if !wait.For(ctx, 50*time.Millisecond) {
			return seal.PublicKey{}, fmt.Errorf("the key is made, and announced as soon as the server can be asked: %w", ctx.Err())
		}
	}
	return next, nil
}
