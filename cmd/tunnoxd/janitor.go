package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/httpapi"
	"github.com/tunnox-net/tunnox/projections"
)

// janitor ends expired logins, and anonymous clients that nobody has used. Every
// control plane has one; all but the first to end something find it gone.
type janitor struct {
	executor httpapi.Executor
	reader   *projections.Reader
	presence httpapi.Presence
	expiry   time.Duration // of anonymous clients without a mapping, after they were last seen; 0 = never
	log      *slog.Logger
	now      func() time.Time
}

const (
	janitorPage = 500
	// Presence can lose the times of clients, for example by a restart of the embedded
	// form. For this long after the start no client is deleted because it was not seen.
	// An agent that runs is connected again within a minute.
	janitorPause = time.Hour
)

// run cleans up from time to time until ctx ends.
func (j *janitor) run(ctx context.Context) error {
	pause := janitorPause
	if j.expiry > 0 {
		pause = min(pause, max(j.expiry/4, time.Second))
	}
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		for what, clean := range map[string]func(context.Context) (int, error){"expired logins": j.endLogins, "unused anonymous clients": j.endClients} {
			n, err := clean(ctx)
			if err != nil && ctx.Err() == nil {
				j.log.Warn("cleaning up", "what", what, "error", err)
			}
			if n > 0 {
				j.log.Info("cleaned up", "what", what, "ended", n)
			}
		}
	}
}

func (j *janitor) endLogins(ctx context.Context) (ended int, err error) {
	for after, more := int64(0), true; more; more = after != 0 {
		var page []projections.LoginRow
		if page, after, err = j.reader.Logins(ctx, after, janitorPage); err != nil {
			return ended, err
		}
		for _, l := range page {
			// An expired login cannot be refreshed, so the row cannot be out of date.
			if j.now().Before(l.ExpiresAt) {
				continue
			}
			if err := j.submit(ctx, domain.EndLogin{ID: l.ID, Reason: domain.EndExpired}, "its time is over"); err != nil && domain.CodeOf(err) != domain.CodeLoginEnded {
				return ended, err
			}
			ended++
		}
	}
	return ended, nil
}

func (j *janitor) endClients(ctx context.Context) (ended int, err error) {
	if j.expiry <= 0 {
		return 0, nil
	}
	for after, more := domain.FirstAnonymousID-1, true; more; more = after != 0 && after < domain.LastAnonymousID {
		var page []projections.ClientRow
		if page, after, err = j.reader.Clients(ctx, projections.AllClients, after, janitorPage); err != nil {
			return ended, err
		}
		unused, err := j.unused(ctx, page)
		if err != nil {
			return ended, err
		}
		for _, id := range unused {
			if err := j.submit(ctx, domain.DeleteClient{ID: id}, "never used"); err != nil && domain.CodeOf(err) != domain.CodeClientNotFound {
				return ended, err
			}
			ended++
		}
	}
	return ended, nil
}

// unused gives the anonymous clients of a page that have no mapping, are offline, and
// were not seen for the time of expiry.
func (j *janitor) unused(ctx context.Context, page []projections.ClientRow) (unused []int64, err error) {
	since := j.now().Add(-j.expiry)
	var ids []int64
	for _, c := range page {
		if c.Kind == domain.ClientAnonymous && c.CreatedAt.Before(since) {
			ids = append(ids, c.ID)
		}
	}
	if len(ids) == 0 {
		return nil, nil
	}
	quotas, err := j.reader.Quotas(ctx, ids...)
	if err != nil {
		return nil, err
	}
	ids = ids[:0]
	for _, q := range quotas {
		if q.Mappings == 0 {
			ids = append(ids, q.Account)
		}
	}
	if len(ids) == 0 {
		return nil, nil
	}
	present, err := j.presence.Lookup(ctx, ids...)
	if err != nil {
		return nil, err
	}
	for i, p := range present {
		if !p.Online && p.LastSeen.Before(since) {
			unused = append(unused, ids[i])
		}
	}
	return unused, nil
}

func (j *janitor) submit(ctx context.Context, c domain.Command, why string) error {
	_, err := j.executor.Submit(ctx, domain.Submission{Command: c, Meta: domain.Metadata{
		At: j.now().UTC(), Actor: "system", Command: c.CommandName(), Allowed: why}})
	return err
}
