package main

import (
	"context"
	"path/filepath"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/eventstore"
	"github.com/tunnox-net/tunnox/eventstore/sqlite"
	"github.com/tunnox-net/tunnox/projections"
	"github.com/tunnox-net/tunnox/projections/memory"
	projectionsredis "github.com/tunnox-net/tunnox/projections/redis"
	"github.com/tunnox-net/tunnox/test/services"
)

// replayEvents is the smallest number of records that a rebuild folds.
const replayEvents = 100_000

// fill executes commands until the log has this many records.
func (e *executor) fill(l *lab, records int) {
	ctx := context.Background()
	receipt, err := e.Submit(ctx, domain.Submission{Command: domain.ChangeUser{ID: e.users[0]}, Meta: domain.Metadata{At: time.Now().UTC(), Actor: "key:bench"}})
	if err != nil {
		l.Fatal(err)
	}
	for have := int(receipt.Position); have < records; {
		began := time.Now()
		made := e.rate(l, manyCallers, time.Second) * time.Since(began).Seconds()
		have += 2 * int(made)
	}
}

// measureReplay rebuilds read models from the log, from each store into each.
func measureReplay(l *lab, t *table, log eventstore.Store) {
	ctx := context.Background()
	copied, err := sqlite.Open(ctx, sqlitePath(l))
	if err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() { _ = copied.Close() })
	copyLog(l, log, copied)
	options, err := redis.ParseURL(services.StartRedis(l).URL())
	if err != nil {
		l.Fatal(err)
	}
	client := redis.NewClient(options)
	l.Cleanup(func() { _ = client.Close() })
	for _, r := range []struct {
		what  string
		log   projections.Log
		store projections.Store
		aim   float64
	}{
		{"SQLite to memory", copied, memory.New(), 100_000},
		{"Postgres to memory", log, memory.New(), 100_000},
		{"Postgres to Redis", log, projectionsredis.New(client, recordKey.Trust(), nil), 0},
	} {
		t.add(row{what: "events replayed, " + r.what, unit: "1/s", aim: r.aim, figures: []figure{missing, figure(replay(l, r.log, r.store))}})
	}
}

func sqlitePath(l *lab) string {
	path := filepath.Join(l.TempDir(), "log.db")
	if _, err := sqlite.Migrate(context.Background(), path); err != nil {
		l.Fatal(err)
	}
	return path
}

// replay gives how many records a second a rebuild folds, from the first one until the
// read models can be read.
func replay(l *lab, log projections.Log, store projections.Store) float64 {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	projector := projections.NewProjector(log, store, projections.Options{})
	done := make(chan error, 1)
	began := time.Now()
	go func() { done <- projector.Run(ctx) }()
	err := projector.Ready(ctx)
	took := time.Since(began)
	at := projector.Status().Checkpoint.Position
	cancel()
	if runErr := <-done; err != nil || runErr != nil {
		l.Fatalf("replay: %v, %v", err, runErr)
	}
	return float64(at) / took.Seconds()
}

// copyLog writes every record of one store into another, in the same order.
func copyLog(l *lab, from, to eventstore.Store) {
	ctx := context.Background()
	var after domain.Position
	for {
		records, err := from.ReadAll(ctx, after, 1000)
		if err != nil {
			l.Fatal(err)
		}
		if len(records) == 0 {
			return
		}
		unit := eventstore.Append{Meta: records[0].Meta}
		index := map[domain.StreamID]int{}
		for _, r := range records {
			if _, ok := index[r.Stream]; !ok {
				index[r.Stream] = len(unit.Streams)
				unit.Streams = append(unit.Streams, eventstore.StreamAppend{Stream: r.Stream, Expected: eventstore.Any})
			}
			unit.Events = append(unit.Events, eventstore.NewEvent{Stream: index[r.Stream], Name: r.Name, Schema: r.Schema, Data: r.Data})
			after = r.Position
		}
		results, err := to.AppendBatch(ctx, []eventstore.Append{unit})
		if err != nil || results[0].Err != nil {
			l.Fatalf("copy the log: %v, %v", err, results)
		}
	}
}
