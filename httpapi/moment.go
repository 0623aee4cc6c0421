package httpapi

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/projections"
)

// foldPatience bounds how long a question about the past may take. The next question
// continues a fold that was cut off.
const foldPatience = 20 * time.Second

type momentKey struct{}

// momentOf gives the position of a request about the past.
func momentOf(ctx context.Context) (domain.Position, bool) {
	p, ok := ctx.Value(momentKey{}).(domain.Position)
	return p, ok
}

// atMoment is the huma middleware that reads as_of. It runs after the authentication,
// which decides on the present rights.
func (a *api) atMoment(ctx huma.Context, next func(huma.Context)) {
	text := ctx.Query("as_of")
	if text == "" {
		next(ctx)
		return
	}
	p, err := a.moment(ctx.Context(), text)
	if err != nil {
		problem, ok := errors.AsType[*Problem](err)
		if !ok {
			problem, _ = errors.AsType[*Problem](a.unreadable(ctx.Context(), err))
		}
		_, w := humago.Unwrap(ctx)
		writeProblem(w, tracked(ctx.Context()), problem)
		return
	}
	ctx.SetHeader("X-Position", strconv.FormatInt(int64(p), 10))
	next(huma.WithValue(ctx, momentKey{}, p))
}

// moment gives the position that a text names: the number itself, or the last position
// at a time.
func (a *api) moment(ctx context.Context, text string) (domain.Position, error) {
	last, err := a.last(ctx)
	if err != nil {
		return 0, err
	}
	head := last.Position
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		if n < 0 || n > int64(head) {
			return 0, invalid("query.as_of", fmt.Sprintf("must be a position the log has, which ends at %d", head))
		}
		return domain.Position(n), nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return 0, invalid("query.as_of", "must be a position or a time such as 2026-01-02T15:04:05Z")
	}
	if t.After(a.now()) && t.After(last.Recorded) {
		return 0, invalid("query.as_of", "has not come yet")
	}
	return a.positionAt(ctx, t)
}

// reader gives the read models of a request: the present ones, or those of its moment.
type reader struct {
	present Reader
	past    Past
}

func (r reader) at(ctx context.Context) (Reader, error) {
	p, past := momentOf(ctx)
	if !past {
		return r.present, nil
	}
	ctx, cancel := context.WithTimeout(ctx, foldPatience)
	defer cancel()
	return r.past.At(ctx, p)
}

// Every method of [Reader] is written out here, so that a new method cannot answer a
// question about the past with the present.

func (r reader) User(ctx context.Context, id int64) (projections.UserRow, bool, error) {
	return row(ctx, r, id, Reader.User)
}

func (r reader) Client(ctx context.Context, id int64) (projections.ClientRow, bool, error) {
	return row(ctx, r, id, Reader.Client)
}

func (r reader) Mapping(ctx context.Context, id int64) (projections.MappingRow, bool, error) {
	return row(ctx, r, id, Reader.Mapping)
}

func (r reader) Quota(ctx context.Context, account int64) (projections.QuotaRow, bool, error) {
	return row(ctx, r, account, Reader.Quota)
}

func (r reader) Quotas(ctx context.Context, accounts ...int64) ([]projections.QuotaRow, error) {
	at, err := r.at(ctx)
	if err != nil {
		return nil, err
	}
	return at.Quotas(ctx, accounts...)
}

func (r reader) Users(ctx context.Context, after int64, limit int) ([]projections.UserRow, int64, error) {
	return rows(ctx, r, projections.AllUsers, after, limit, func(at Reader, ctx context.Context, _ projections.Index, after int64, limit int) ([]projections.UserRow, int64, error) {
		return at.Users(ctx, after, limit)
	})
}

func (r reader) Clients(ctx context.Context, index projections.Index, after int64, limit int) ([]projections.ClientRow, int64, error) {
	return rows(ctx, r, index, after, limit, Reader.Clients)
}

func (r reader) Mappings(ctx context.Context, index projections.Index, after int64, limit int) ([]projections.MappingRow, int64, error) {
	return rows(ctx, r, index, after, limit, Reader.Mappings)
}

func (r reader) Key(ctx context.Context, id int64) (projections.KeyRow, bool, error) {
	return row(ctx, r, id, Reader.Key)
}

func (r reader) Login(ctx context.Context, id int64) (projections.LoginRow, bool, error) {
	return row(ctx, r, id, Reader.Login)
}

func (r reader) Share(ctx context.Context, id int64) (projections.ShareRow, bool, error) {
	return row(ctx, r, id, Reader.Share)
}

func (r reader) Invite(ctx context.Context, id int64) (projections.InviteRow, bool, error) {
	return row(ctx, r, id, Reader.Invite)
}

func (r reader) Invites(ctx context.Context, index projections.Index, after int64, limit int) ([]projections.InviteRow, int64, error) {
	return rows(ctx, r, index, after, limit, Reader.Invites)
}

func (r reader) Domain(ctx context.Context, id int64) (projections.DomainRow, bool, error) {
	return row(ctx, r, id, Reader.Domain)
}

func (r reader) Domains(ctx context.Context, index projections.Index, after int64, limit int) ([]projections.DomainRow, int64, error) {
	return rows(ctx, r, index, after, limit, Reader.Domains)
}

func (r reader) Webhook(ctx context.Context, id int64) (projections.WebhookRow, bool, error) {
	return row(ctx, r, id, Reader.Webhook)
}

func (r reader) Webhooks(ctx context.Context, index projections.Index, after int64, limit int) ([]projections.WebhookRow, int64, error) {
	return rows(ctx, r, index, after, limit, Reader.Webhooks)
}

func (r reader) Keys(ctx context.Context, index projections.Index, after int64, limit int) ([]projections.KeyRow, int64, error) {
	return rows(ctx, r, index, after, limit, Reader.Keys)
}

func (r reader) Shares(ctx context.Context, index projections.Index, after int64, limit int) ([]projections.ShareRow, int64, error) {
	return rows(ctx, r, index, after, limit, Reader.Shares)
}

// UserNamed is for logins, which always read the present.
func (r reader) UserNamed(ctx context.Context, name string) (projections.UserRow, bool, error) {
	return r.present.UserNamed(ctx, name)
}

func (r reader) Wait(ctx context.Context, p domain.Position) error { return r.present.Wait(ctx, p) }

func (r reader) WaitRow(ctx context.Context, p domain.Position) error {
	return r.present.WaitRow(ctx, p)
}

func row[R any](ctx context.Context, r reader, id int64, read func(Reader, context.Context, int64) (R, bool, error)) (R, bool, error) {
	at, err := r.at(ctx)
	if err != nil {
		var none R
		return none, false, err
	}
	return read(at, ctx, id)
}

func rows[R any](ctx context.Context, r reader, index projections.Index, after int64, limit int,
	list func(Reader, context.Context, projections.Index, int64, int) ([]R, int64, error)) ([]R, int64, error) {
	at, err := r.at(ctx)
	if err != nil {
		return nil, 0, err
	}
	return list(at, ctx, index, after, limit)
}
