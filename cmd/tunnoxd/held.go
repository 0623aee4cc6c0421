package main

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/tunnox-net/tunnox/directory"
	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/httpapi"
	"github.com/tunnox-net/tunnox/projections"
)

// releaser ends the mappings and shares whose holders' agents have been away for the
// time of grace. Every control plane has a releaser, and each counts for itself. If
// another control plane was faster, the mapping is already gone.
// again.
//
// It goes by what it has seen itself, and by no time of anybody else. A control plane
// that has just started, a directory that was flushed or cannot be asked, and a cluster
// without a forwarder say nothing about an agent: then counting begins anew.
type releaser struct {
	executor httpapi.Executor
	reader   *projections.Reader
	presence httpapi.Presence
	nodes    directory.Nodes
	ready    func(context.Context) bool // whether this control plane is ready
	grace    time.Duration
	log      *slog.Logger
	now      func() time.Time

	away map[int64]time.Time // holders, with the time when this releaser first saw them away
}

const (
	releasePage = 500
	// releaseEvery bounds how much later than due a mapping ends.
	releaseEvery = 5 * time.Second
)

// run looks for due mappings and shares, at least every releaseEvery, until ctx ends.
func (r *releaser) run(ctx context.Context) error {
	tick := time.NewTicker(min(releaseEvery, r.grace/4))
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		n, err := r.look(ctx)
		if err != nil && ctx.Err() == nil {
			r.away = nil
			r.log.Warn("cannot end the tunnels of programs that are gone, trying again", "error", err)
		}
		if n > 0 {
			r.log.Info("ended the tunnels of programs that are gone", "ended", n)
		}
	}
}

// held is a mapping or a share with its holders.
type held struct {
	holders []int64
	end     domain.Command
	gone    domain.Code // the refusal if another control plane was faster
}

// look ends the due mappings and shares, and gives their number.
func (r *releaser) look(ctx context.Context) (ended int, err error) {
	nodes, err := r.nodes.Nodes(ctx)
	if err != nil {
		return 0, err
	}
	if !r.ready(ctx) || len(nodes) == 0 {
		r.away = nil
		return 0, nil
	}
	before, now := r.away, r.now()
	r.away = map[int64]time.Time{}
	look := func(page []held) error {
		var ids []int64
		for _, h := range page {
			ids = append(ids, h.holders...)
		}
		slices.Sort(ids)
		ids = slices.Compact(ids)
		if len(ids) == 0 {
			return nil
		}
		present, err := r.presence.Lookup(ctx, ids...)
		if err != nil {
			return err
		}
		for i, p := range present {
			if p.Online {
				continue
			}
			since, known := before[ids[i]]
			if !known {
				since = now
			}
			r.away[ids[i]] = since
		}
		for _, h := range page {
			if !slices.ContainsFunc(h.holders, func(id int64) bool {
				since, away := r.away[id]
				return away && now.Sub(since) >= r.grace
			}) {
				continue
			}
			_, err := r.executor.Submit(ctx, domain.Submission{Command: h.end, Meta: domain.Metadata{
				At: now.UTC(), Actor: "system", Command: h.end.CommandName(), Allowed: "its agent is gone"}})
			switch domain.CodeOf(err) {
			case h.gone, domain.CodeMappingKept:
				continue
			}
			if err != nil {
				return err
			}
			ended++
		}
		return nil
	}
	for after, more := int64(0), true; more; more = after != 0 {
		var rows []projections.MappingRow
		if rows, after, err = r.reader.Mappings(ctx, projections.MappingsHeld, after, releasePage); err != nil {
			return ended, err
		}
		var page []held
		for _, m := range rows {
			page = append(page, held{m.Holders(), domain.DeleteMapping{ID: m.ID, IfHeld: true}, domain.CodeMappingNotFound})
		}
		if err := look(page); err != nil {
			return ended, err
		}
	}
	for after, more := int64(0), true; more; more = after != 0 {
		var rows []projections.ShareRow
		if rows, after, err = r.reader.Shares(ctx, projections.SharesHeld, after, releasePage); err != nil {
			return ended, err
		}
		var page []held
		for _, h := range rows {
			page = append(page, held{h.Holders(), domain.RevokeShare{ID: h.ID}, domain.CodeShareNotFound})
		}
		if err := look(page); err != nil {
			return ended, err
		}
	}
	return ended, nil
}
