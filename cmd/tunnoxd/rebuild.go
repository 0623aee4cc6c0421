package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/eventstore"
	"github.com/tunnox-net/tunnox/projections"
	"github.com/tunnox-net/tunnox/projections/memory"
	projectionsredis "github.com/tunnox-net/tunnox/projections/redis"
)

const rebuildLong = `Fold the whole log into new read models. With --redis the new read models are built
beside the present ones and replace them in one step; servers may be running. Without
--redis there is nothing to replace, because an embedded server builds its read models
at each start; the command then prints the time that this takes.

With --check nothing is replaced. The read models are built in memory and compared with
those in --redis or, without --redis, with those of a server that follows the log as it
grows. Every row that differs is printed. Status 0: no difference. 1: some.`

// errDifferent ends the program with status 1; the differences have been printed.
var errDifferent = errors.New("the read models differ from the log")

// rebuild rebuilds read models, or checks them.
func rebuild(ctx context.Context, cfg *config, check bool, stdout, stderr io.Writer) (err error) {
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
	bar := newProgress(stderr, "building")
	options := projections.Options{
		Head:     func(context.Context) (domain.Position, error) { return head.Position, nil },
		Progress: func(p projections.Progress) { bar.at(int64(p.Done), int64(p.Head)) },
		Logger:   newLogger(stderr, cfg),
	}
	if cfg.Redis == "" {
		return rebuildInMemory(ctx, log, head.Position, check, options, bar, stdout)
	}
	at, err := cfg.redisOptions()
	if err != nil {
		return err
	}
	client := redis.NewClient(at)
	record, err := recordKeyBeside(ctx, cfg)
	if err != nil {
		return errors.Join(err, client.Close())
	}
	rows := projectionsredis.New(client, record.Trust(), options.Logger)
	defer func() { err = errors.Join(err, rows.Close(), client.Close()) }()
	if check {
		checked, err := projections.Check(ctx, log, rows, memory.New(), options)
		return printChecked(stdout, checked, err, bar)
	}
	cp, err := projections.NewProjector(log, rows, options).Rebuild(ctx)
	took := bar.end()
	if err != nil {
		return fmt.Errorf("rebuild: %w", err)
	}
	_, err = fmt.Fprintf(stdout, "rebuilt the read models from %s\n", pace(int64(cp.Position), took))
	return err
}

func rebuildInMemory(ctx context.Context, log projections.Log, head domain.Position, check bool, o projections.Options, bar *progress, stdout io.Writer) error {
	built := memory.New()
	if !check {
		if err := foldTo(ctx, log, built, head, bar); err != nil {
			return err
		}
		_, err := fmt.Fprintf(stdout, "built the read models in memory from %s; an embedded server does this at each start\n", pace(int64(head), bar.end()))
		return err
	}
	followed := memory.New()
	if err := follow(ctx, log, followed, head); err != nil {
		return err
	}
	checked, err := projections.Check(ctx, log, followed, built, o)
	return printChecked(stdout, checked, err, bar)
}

// follow keeps read models at the end of a log that grows by a few records at a time,
// as a server does that runs all the time.
func follow(ctx context.Context, log projections.Log, into *memory.Store, head domain.Position) error {
	if head == 0 {
		return nil
	}
	const step = 97 // never a whole number of batches
	ctx, cancel := context.WithCancel(ctx)
	until := projections.NewUntil(log, 1)
	p := projections.NewProjector(until, into, projections.Options{})
	var running sync.WaitGroup
	running.Go(func() { _ = p.Run(ctx) }) // nil
	defer running.Wait()
	defer cancel()
	if err := p.Ready(ctx); err != nil {
		return err
	}
	for at := domain.Position(1); at < head; {
		at = min(at+step, head)
		until.MoveTo(at)
		for {
			bounded, done := context.WithTimeout(ctx, time.Second)
			err := into.Wait(bounded, at)
			done()
			if halted := p.Status().Halted; halted != nil {
				return halted
			}
			if err == nil || !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
				if err != nil {
					return err
				}
				break
			}
		}
	}
	return nil
}

func printChecked(out io.Writer, c projections.Checked, err error, bar *progress) error {
	took := bar.end()
	if err != nil {
		return fmt.Errorf("check the read models: %w", err)
	}
	for _, d := range c.Differences {
		fmt.Fprintf(out, "%s: %s\n", d.Name, differs(d))
	}
	fmt.Fprintf(out, "%d rows and %d list entries at position %d compared, folded from %s: ", c.Rows, c.Members, c.Position, pace(int64(c.Position), took))
	if len(c.Differences) == 0 {
		_, err = fmt.Fprintln(out, "no difference")
		return err
	}
	if _, err = fmt.Fprintf(out, "%d differ\n", len(c.Differences)); err != nil {
		return err
	}
	return errDifferent
}

// differs says how a row differs from the fold of the log. It names fields and shows no
// values: rows contain password hashes and addresses, and output is pasted into
// tickets.
func differs(d projections.Difference) string {
	switch {
	case d.Live == "":
		return "is missing"
	case d.Want == "":
		return "should not be there"
	}
	live, want := map[string]json.RawMessage{}, map[string]json.RawMessage{}
	if json.Unmarshal([]byte(d.Live), &live) != nil || json.Unmarshal([]byte(d.Want), &want) != nil {
		return "is not a row, or has another form"
	}
	var fields []string
	for name := range want {
		if !bytes.Equal(live[name], want[name]) {
			fields = append(fields, name)
		}
	}
	for name := range live {
		if _, known := want[name]; !known {
			fields = append(fields, "a field that is not known") // its name may be anything
		}
	}
	if slices.Sort(fields); len(fields) == 0 {
		return "is encoded in another way"
	}
	return "differs in " + strings.Join(slices.Compact(fields), ", ")
}
