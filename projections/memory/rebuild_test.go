package memory_test

import (
	"context"
	"fmt"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/eventstore"
	"github.com/tunnox-net/tunnox/eventstore/sqlite"
	"github.com/tunnox-net/tunnox/projections"
	"github.com/tunnox-net/tunnox/projections/memory"
)

// BenchmarkRebuildFromFile measures what the start of the embedded form costs for each
// record: reading the file, decoding, folding. Compare the processor time; the rate
// depends on other work of the machine.
func BenchmarkRebuildFromFile(b *testing.B) {
	log := fileLog(b, 100_000)
	b.ReportAllocs()
	before, events := processorTime(b), domain.Position(0)
	for b.Loop() {
		ctx, cancel := context.WithCancel(context.Background())
		p := projections.NewProjector(log, memory.New(), projections.Options{})
		done := make(chan error, 1)
		go func() { done <- p.Run(ctx) }()
		if err := p.Ready(ctx); err != nil {
			b.Fatal(err)
		}
		events += p.Status().Checkpoint.Position
		cancel()
		if err := <-done; err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(events)/b.Elapsed().Seconds(), "events/s")
	b.ReportMetric(float64((processorTime(b)-before).Nanoseconds())/float64(events), "cpu-ns/event")
}

func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// fileLog is a log as 32 users leave it who create clients: two records each, with
// metadata of their own.
func fileLog(b *testing.B, records int) *sqlite.Store {
	b.Helper()
	ctx := context.Background()
	path := filepath.Join(b.TempDir(), "log.db")
	if _, err := sqlite.Migrate(ctx, path); err != nil {
		b.Fatal(err)
	}
	store, err := sqlite.Open(ctx, path)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := store.Close(); err != nil {
			b.Error(err)
		}
	})
	const users = 32
	at := time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.UTC)
	meta := func(command string) domain.Metadata {
		at = at.Add(1234567 * time.Nanosecond)
		return domain.Metadata{At: at, Actor: "key:api", Command: command, Source: "127.0.0.1:40404",
			Request: fmt.Sprintf("%016x", at.UnixNano()), Allowed: "role:admin"}
	}
	appended := func(batch []eventstore.Append) {
		results, err := store.AppendBatch(ctx, batch)
		for i := range results {
			if err == nil {
				err = results[i].Err
			}
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	write := func(a *eventstore.Append, stream domain.StreamID, e domain.Event) {
		name, schema, data, err := domain.Encode(e)
		if err != nil {
			b.Fatal(err)
		}
		a.Streams = append(a.Streams, eventstore.StreamAppend{Stream: stream, Expected: eventstore.Any})
		a.Events = append(a.Events, eventstore.NewEvent{Stream: len(a.Streams) - 1, Name: name, Schema: schema, Data: data})
	}
	var batch []eventstore.Append
	for u := range int64(users) {
		id := domain.SequenceUser.First() + u
		a := eventstore.Append{Account: id, Meta: meta("create_user")}
		write(&a, domain.UserStream(id), domain.UserCreated{UserID: id, Username: fmt.Sprint("user-", u), Email: fmt.Sprintf("user-%d@example.org", u)})
		write(&a, domain.QuotaStream(id), domain.QuotaSet{Account: id})
		batch = append(batch, a)
	}
	appended(batch)
	for written := 2 * users; written < records; {
		batch = batch[:0]
		for range 500 {
			n := int64(written / 2)
			id, user := domain.SequenceClient.First()+n, domain.SequenceUser.First()+n%users
			a := eventstore.Append{Account: user, Meta: meta("create_client")}
			write(&a, domain.ClientStream(id), domain.ClientCreated{ClientID: id, UserID: user, Name: "a client of the bench", PublicKey: make([]byte, 32)})
			write(&a, domain.QuotaStream(user), domain.QuotaTaken{Resources: []domain.Resource{domain.ResourceClient}, ID: id})
			batch = append(batch, a)
			written += 2
		}
		appended(batch)
	}
	return store
}
