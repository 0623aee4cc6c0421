package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/eventstore"
	"github.com/tunnox-net/tunnox/projections"
	"github.com/tunnox-net/tunnox/projections/memory"
)

const replayLong = `Fold the log up to a position or a moment and print what there was then: users,
clients and mappings. The command reads the log while servers may be running, and
changes nothing. A moment is written as in RFC 3339, for example 2026-01-02T15:04:05Z.
The time of a record is the time at which the log stored it.`

type replayOptions struct {
	until string
	json  bool
}

// replayPage is how many rows are read at a time.
const replayPage = 1000

// replay prints the state at a moment.
func replay(ctx context.Context, cfg *config, o replayOptions, stdout, stderr io.Writer) (err error) {
	at, moment, err := parseUntil(o.until)
	if err != nil {
		return usageError{err}
	}
	kept, err := openToRead(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, kept.Close()) }()
	log := eventstore.NewPersonal(kept)
	head, err := log.Head(ctx)
	if err != nil {
		return err
	}
	if !moment.IsZero() {
		if at, err = lastBefore(ctx, log, head.Position, moment); err != nil {
			return err
		}
	}
	if at > head.Position {
		return fmt.Errorf("--until: the log ends at position %d", head.Position)
	}
	bar := newProgress(stderr, "replaying")
	store := memory.New()
	if err := foldTo(ctx, log, store, at, bar); err != nil {
		return err
	}
	took := bar.end()
	reader := projections.NewReader(store)
	if o.json {
		err = printJSON(ctx, stdout, at, reader)
	} else {
		err = printTables(ctx, stdout, reader)
		if err == nil {
			_, err = fmt.Fprintf(stderr, "position %d; replayed %s\n", at, pace(int64(at), took))
		}
	}
	return err
}

// parseUntil reads a position or a moment.
func parseUntil(s string) (domain.Position, time.Time, error) {
	if n, err := strconv.ParseInt(s, 10, 64); err == nil && n >= 0 {
		return domain.Position(n), time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return 0, t, fmt.Errorf("--until: %q is neither a position nor a time such as 2026-01-02T15:04:05Z", s)
	}
	return 0, t, nil
}

// lastBefore finds the last record that the log stored before a moment. Times rise with
// positions, except where the clock was set back, so each read halves the range.
func lastBefore(ctx context.Context, log projections.Log, head domain.Position, moment time.Time) (domain.Position, error) {
	low, high := domain.Position(0), head // the answer is in low..high
	for low < high {
		middle := low + (high-low+1)/2
		records, err := log.ReadAll(ctx, middle-1, 1)
		if err != nil {
			return 0, err
		}
		if len(records) == 0 || records[0].Recorded.After(moment) {
			high = middle - 1
		} else {
			low = middle
		}
	}
	return low, nil
}

// foldTo folds the log up to a position into read models.
func foldTo(ctx context.Context, log projections.Log, into *memory.Store, at domain.Position, bar *progress) error {
	ctx, cancel := context.WithCancel(ctx)
	p := projections.NewProjector(projections.NewUntil(log, at), into, projections.Options{
		Head:     func(context.Context) (domain.Position, error) { return at, nil },
		Progress: func(p projections.Progress) { bar.at(int64(p.Done), int64(p.Head)) },
	})
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	err := p.Ready(ctx)
	cancel()
	return errors.Join(err, <-done)
}

// each pages through a list.
func each[R any](list func(after int64, limit int) ([]R, int64, error), visit func(R) error) error {
	for after := int64(0); ; {
		rows, next, err := list(after, replayPage)
		if err != nil {
			return err
		}
		for _, r := range rows {
			if err := visit(r); err != nil {
				return err
			}
		}
		if after = next; next == 0 {
			return nil
		}
	}
}

// printJSON prints an object with three lists. Password hashes are left out, because no
// audit needs them.
func printJSON(ctx context.Context, out io.Writer, at domain.Position, r *projections.Reader) error {
	state := struct {
		Position domain.Position          `json:"position"`
		Users    []projections.UserRow    `json:"users"`
		Clients  []projections.ClientRow  `json:"clients"`
		Mappings []projections.MappingRow `json:"mappings"`
	}{at, []projections.UserRow{}, []projections.ClientRow{}, []projections.MappingRow{}}
	err := eachUser(ctx, r, func(u projections.UserRow) error {
		u.PasswordHash = ""
		state.Users = append(state.Users, u)
		return nil
	})
	if err == nil {
		err = eachClient(ctx, r, func(c projections.ClientRow) error { state.Clients = append(state.Clients, c); return nil })
	}
	if err == nil {
		err = eachMapping(ctx, r, func(m projections.MappingRow) error { state.Mappings = append(state.Mappings, m); return nil })
	}
	if err != nil {
		return err
	}
	enc := json.NewEncoder(out)
	enc.SetIndent("", "  ")
	return enc.Encode(state)
}

func eachUser(ctx context.Context, r *projections.Reader, visit func(projections.UserRow) error) error {
	return each(func(after int64, limit int) ([]projections.UserRow, int64, error) { return r.Users(ctx, after, limit) }, visit)
}

func eachClient(ctx context.Context, r *projections.Reader, visit func(projections.ClientRow) error) error {
	return each(func(after int64, limit int) ([]projections.ClientRow, int64, error) {
		return r.Clients(ctx, projections.AllClients, after, limit)
	}, visit)
}

func eachMapping(ctx context.Context, r *projections.Reader, visit func(projections.MappingRow) error) error {
	return each(func(after int64, limit int) ([]projections.MappingRow, int64, error) {
		return r.Mappings(ctx, projections.AllMappings, after, limit)
	}, visit)
}

func printTables(ctx context.Context, out io.Writer, r *projections.Reader) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "USER\tUSERNAME\tEMAIL\tSTATUS\tCREATED")
	err := eachUser(ctx, r, func(u projections.UserRow) error {
		_, err := fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\n", u.ID, u.Username, u.Email, enabled(u.Disabled), u.CreatedAt.Format(time.RFC3339))
		return err
	})
	if err == nil {
		fmt.Fprintln(w, "\nCLIENT\tUSER\tKIND\tNAME\tSTATUS\tCREATED")
		err = eachClient(ctx, r, func(c projections.ClientRow) error {
			_, err := fmt.Fprintf(w, "%d\t%d\t%s\t%s\t%s\t%s\n", c.ID, c.UserID, c.Kind, c.Name, enabled(c.Disabled), c.CreatedAt.Format(time.RFC3339))
			return err
		})
	}
	if err == nil {
		fmt.Fprintln(w, "\nMAPPING\tUSER\tPROTOCOL\tLISTENS\tFORWARDS TO\tSTATUS\tCREATED")
		err = eachMapping(ctx, r, func(m projections.MappingRow) error {
			_, err := fmt.Fprintf(w, "%d\t%d\t%s\t%d at %s:%d\t%d to %s\t%s\t%s\n", m.ID, m.UserID, m.Protocol, m.SourceClientID, m.LocalHost, m.LocalPort,
				m.TargetClientID, m.Service.Text(), enabled(m.Disabled), m.CreatedAt.Format(time.RFC3339))
			return err
		})
	}
	return errors.Join(err, w.Flush())
}

func enabled(disabled bool) string {
	if disabled {
		return "disabled"
	}
	return "active"
}
