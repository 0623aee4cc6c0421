// Package projectionstest is the suite that every store of read models must pass, and
// the parts of it: a log in memory that decides real commands, and a model that gives
// the right reads at any position.
package projectionstest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/tunnox-net/tunnox/domain"
)

// Log is a log in memory. It decides commands with the domain's own Decide, so that its
// histories are possible ones.
type Log struct {
	mu      sync.Mutex
	records []domain.Record
	states  domain.States
	closed  map[domain.StreamID]bool
	claims  map[[2]string]domain.StreamID
	version map[domain.StreamID]domain.Version
	grown   chan struct{}
	salt    byte // makes event ids of two logs differ
}

// NewLog gives an empty log; logs with different salts share no record.
func NewLog(salt byte) *Log {
	return &Log{states: domain.States{}, closed: map[domain.StreamID]bool{}, claims: map[[2]string]domain.StreamID{},
		version: map[domain.StreamID]domain.Version{}, grown: make(chan struct{}), salt: salt}
}

// epoch is when histories begin; every position is a second later.
var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// Submit decides a command and appends the result.
func (l *Log) Submit(c domain.Command) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	read := domain.States{}
	want := c.Reads()
	for {
		for _, id := range want {
			read[id] = l.state(id)
		}
		d, err := c.Decide(read)
		if need, ok := errors.AsType[*domain.NeedStreams](err); ok {
			want = need.Streams
			continue
		}
		if err != nil {
			return err
		}
		return l.append(d)
	}
}

func (l *Log) state(id domain.StreamID) domain.Aggregate {
	if a, ok := l.states[id]; ok {
		return a
	}
	return domain.NewAggregate(id)
}

func (l *Log) append(d domain.Decision) error {
	for _, ch := range d.Changes {
		if l.closed[ch.Stream] {
			return fmt.Errorf("stream %s is closed", ch.Stream)
		}
	}
	for _, c := range d.Releases {
		delete(l.claims, [2]string{c.Scope, c.Value})
	}
	for _, c := range d.Claims {
		if owner, ok := l.claims[[2]string{c.Scope, c.Value}]; ok && owner != c.Owner {
			return &domain.Error{Code: domain.TakenCode(c.Scope), Message: "taken"}
		}
	}
	for _, c := range d.Claims {
		l.claims[[2]string{c.Scope, c.Value}] = c.Owner
	}
	for _, ch := range d.Changes {
		name, schema, data, err := domain.Encode(ch.Event)
		if err != nil {
			return err
		}
		l.add(domain.Record{Stream: ch.Stream, Owner: d.Account, Name: name, Schema: schema, Data: data})
		l.states[ch.Stream] = l.state(ch.Stream)
		l.states[ch.Stream].Apply(ch.Event, l.records[len(l.records)-1].Meta.At)
	}
	for _, id := range d.Closes {
		l.closed[id] = true
	}
	return nil
}

// Append adds a record without a decision; position, version, id and times are filled
// in.
func (l *Log) Append(r domain.Record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.add(r)
}

func (l *Log) add(r domain.Record) {
	n := len(l.records) + 1
	l.version[r.Stream]++
	r.Position, r.Version = domain.Position(n), l.version[r.Stream]
	r.ID = domain.EventID{15: byte(n), 14: byte(n >> 8), 13: byte(n >> 16), 12: byte(n >> 24), 0: l.salt + 1}
	r.Meta.At, r.Meta.Actor = epoch.Add(time.Duration(n)*time.Second), "system"
	r.Recorded = time.Now()
	l.records = append(l.records, r)
	close(l.grown)
	l.grown = make(chan struct{})
}

// Records gives the records up to a position.
func (l *Log) Records(to domain.Position) []domain.Record {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.records[:to:to]
}

// Position gives the end of the log.
func (l *Log) Position() domain.Position {
	l.mu.Lock()
	defer l.mu.Unlock()
	return domain.Position(len(l.records))
}

// Head is Position in the form of projections.Options.
func (l *Log) Head(context.Context) (domain.Position, error) { return l.Position(), nil }

// ReadAll implements projections.Log.
func (l *Log) ReadAll(ctx context.Context, after domain.Position, limit int) ([]domain.Record, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	from := min(int(after), len(l.records))
	to := min(from+limit, len(l.records))
	return slices.Clone(l.records[from:to]), ctx.Err()
}

// Wait implements projections.Log.
func (l *Log) Wait(ctx context.Context, after domain.Position) error {
	for {
		l.mu.Lock()
		there, grown := domain.Position(len(l.records)) > after, l.grown
		l.mu.Unlock()
		if there {
			return nil
		}
		select {
		case <-grown:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
