package httpapi

import (
	"context"
	"net/http"
	"strconv"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tunnox-net/tunnox/domain"
)

const codeEventNotFound domain.Code = "event_not_found"

type revertInput struct {
	Position int64 `path:"position" minimum:"1" doc:"The position of the event" example:"42"`
	KeyHeader
}

// Reverted is the answer to a revert: the events that took another one back.
type Reverted struct {
	Reverts domain.Position `json:"reverts" doc:"The position of the reverted event" example:"42"`
	Command string          `json:"command" doc:"The command that reverted the event" example:"enable_mapping"`
	Events  []Event         `json:"events" nullable:"false" doc:"The events that were written"`
}

type revertAnswer struct {
	WriteAnswer
	Body Reverted
}

func (a *api) registerRevert() {
	op := operation(http.MethodPost, "/events/{position}/revert", "revert-event", "events", "Take an event back", errorsOfWrite...)
	op.Description = "Gives the command that asks for what was before the event, with the event as its cause. What cannot be taken back is 409 `not_revertible`, " +
		"what has changed since is 409 `moved_on`; the detail says why."
	huma.Register(a.huma, op, a.revert)
}

func (a *api) revert(ctx context.Context, in *revertInput) (*revertAnswer, error) {
	position := domain.Position(in.Position)
	found, err := a.config.History.ReadAll(ctx, position-1, 1)
	if err != nil {
		return nil, a.unreadable(ctx, err)
	}
	if len(found) == 0 {
		return nil, refused(http.StatusNotFound, &domain.Error{Code: codeEventNotFound, Message: "The log has no such position."})
	}
	record := found[0]
	event, err := record.Event()
	if err != nil {
		return nil, a.refusal(ctx, err)
	}
	before, _, err := a.fold(context.WithValue(ctx, momentKey{}, position-1), record.Stream)
	if err != nil {
		return nil, a.unreadable(ctx, err)
	}
	now, at, err := a.fold(ctx, record.Stream)
	if err != nil {
		return nil, a.unreadable(ctx, err)
	}
	held, _, err := a.fold(ctx, domain.QuotaStream(record.Owner))
	if err != nil {
		return nil, a.unreadable(ctx, err)
	}
	quota, _ := held.(*domain.Quota)
	command, refusal := domain.Compensation(event, before, now, quota)
	if refusal != nil {
		// A repeat comes upon what the first one made. It is told by its key, with
		// the command that was right when the event had just happened.
		then := before.Clone()
		then.Apply(event, record.Meta.At)
		if command, err = domain.Compensation(event, before, then, nil); err != nil || in.IdempotencyKey == "" {
			return nil, a.refusal(ctx, refusal)
		}
	}
	s, err := a.submission(ctx, MatchHeader{KeyHeader: in.KeyHeader}, nil, command)
	if err != nil {
		return nil, a.refusal(ctx, err)
	}
	s.Expect = &at.Version // what was decided here stands on it
	s.Meta.Cause = "event:" + strconv.FormatInt(int64(position), 10)
	var r domain.Receipt
	if refusal == nil {
		r, err = a.send(ctx, in.KeyHeader, s)
	} else if r, err = a.config.Executor.Preview(ctx, s); err == nil && !r.Duplicate {
		err = refusal
	} else if err == nil && in.DryRun {
		err = a.dryRun(ctx, s)
	}
	if domain.CodeOf(err) == domain.CodeVersionConflict {
		err = &domain.Error{Code: domain.CodeMovedOn, Message: "It was changed at the same moment. Look again."}
	}
	if err != nil {
		return nil, a.refusal(ctx, err)
	}
	body := Reverted{Reverts: position, Command: command.CommandName(), Events: []Event{}}
	for _, record := range r.Records {
		e, err := a.event(ctx, record)
		if err != nil {
			return nil, a.refusal(ctx, err)
		}
		body.Events = append(body.Events, e)
	}
	return &revertAnswer{answerOf(r), body}, nil
}
