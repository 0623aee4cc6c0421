package eventstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/tunnox-net/tunnox/domain"
)

// Preview decides a command on the present log and gives the answer that
// [Executor.Submit] would give, without writing anything: a refusal, or a receipt whose
// records have no position, id or time yet. It does not use up the idempotency key. The
// answer is true for one moment only: other commands may be executed before a later
// Submit.
func (e *Executor) Preview(ctx context.Context, sub domain.Submission) (domain.Receipt, error) {
	r, err := e.preview(ctx, sub)
	return r, outward(ctx, err)
}

func (e *Executor) preview(ctx context.Context, sub domain.Submission) (domain.Receipt, error) {
	if use, used, err := e.usedBefore(ctx, sub); err != nil {
		return domain.Receipt{}, err
	} else if used {
		return e.recall(ctx, sub, use)
	}
	states, versions := domain.States{}, map[domain.StreamID]domain.Version{}
	streams := sub.Command.Reads()
	var decision domain.Decision
	for {
		for _, id := range streams {
			if _, read := states[id]; read {
				continue
			}
			f, err := e.fold(ctx, id)
			if err != nil {
				return domain.Receipt{}, err
			}
			states[id], versions[id] = f.state, f.version
		}
		var err error
		decision, err = sub.Command.Decide(states)
		if need, ok := errors.AsType[*domain.NeedStreams](err); ok && !haveAll(states, need.Streams) {
			streams = need.Streams
			continue
		}
		if err != nil {
			return domain.Receipt{}, err
		}
		break
	}
	subject := sub.Command.Subject()
	if sub.Expect != nil && versions[subject] != *sub.Expect {
		return domain.Receipt{}, versionConflict(versions[subject], *sub.Expect)
	}
	if err := e.checkClaims(ctx, decision, sub.Untold); err != nil {
		return domain.Receipt{}, err
	}
	r := domain.Receipt{Subject: subject, State: states[subject].Clone()}
	a := Append{Meta: sub.Meta}
	meta := a.meta()
	meta.Command = sub.Command.CommandName()
	for _, c := range decision.Changes {
		name, schema, data, err := domain.Encode(c.Event)
		if err != nil {
			return domain.Receipt{}, fmt.Errorf("command %s: %w", meta.Command, err)
		}
		versions[c.Stream]++
		if c.Stream == subject {
			r.State.Apply(c.Event, meta.At)
		}
		r.Records = append(r.Records, domain.Record{Stream: c.Stream, Version: versions[c.Stream],
			Owner: cmp.Or(c.Owner, decision.Account, sub.Command.Account()), Name: name, Schema: schema, Data: data, Meta: meta})
	}
	r.Version = versions[subject]
	return r, nil
}

// checkClaims refuses a decision with a claim that somebody else holds, but for scopes
// that are not told. They are looked up all the same, so that the time does not tell.
func (e *Executor) checkClaims(ctx context.Context, d domain.Decision, untold []string) error {
	holders, err := e.store.Holders(ctx, d.Claims)
	if err != nil {
		return err
	}
	for i, c := range d.Claims {
		held := domain.Claim{Scope: c.Scope, Value: c.Value, Owner: holders[i]}
		if held.Owner != "" && held.Owner != c.Owner && !slices.Contains(untold, c.Scope) && !slices.Contains(d.Releases, held) {
			return claimRefusal(c)
		}
	}
	return nil
}
