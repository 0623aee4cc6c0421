package domain

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"time"
)

// maxRounds is how often a decision may ask for more streams. Every command of
// this package needs at most its own reads, what its subject points to, and the
// quotas behind those; a round per item would make a large delete quadratic.
const maxRounds = 4

// world is a log, its claims and its closed streams, in memory: as much of a
// store as a decision can see.
type world struct {
	streams map[StreamID][]Record
	claims  map[[2]string]StreamID
	closed  map[StreamID]bool
	head    Position
	now     time.Time
}

func newWorld() *world {
	return &world{
		streams: map[StreamID][]Record{},
		claims:  map[[2]string]StreamID{},
		closed:  map[StreamID]bool{},
		now:     time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC),
	}
}

// state folds a stream.
func (w *world) state(id StreamID) Aggregate {
	a := NewAggregate(id)
	if err := Fold(a, w.streams[id]); err != nil {
		panic(err)
	}
	return a
}

// decide runs a command as the executor does: it loads what the command reads
// and what it asks for, and fails when deciding changed a state.
func (w *world) decide(c Command) (Decision, error) {
	states := States{}
	for _, id := range c.Reads() {
		states[id] = w.state(id)
	}
	for range maxRounds {
		before := map[StreamID]Aggregate{}
		for id := range states {
			before[id] = w.state(id)
		}
		d, err := c.Decide(states)
		if len(states) != len(before) {
			return d, fmt.Errorf("%s added states while deciding", c.CommandName())
		}
		for id, a := range states {
			if !reflect.DeepEqual(a, before[id]) {
				return d, fmt.Errorf("%s changed the state of %s while deciding", c.CommandName(), id)
			}
		}
		need, ok := errors.AsType[*NeedStreams](err)
		if !ok {
			return d, err
		}
		for _, id := range need.Streams {
			if _, ok := states[id]; ok {
				return d, fmt.Errorf("%s asked for %s again", c.CommandName(), id)
			}
			states[id] = w.state(id)
		}
	}
	return Decision{}, fmt.Errorf("%s still asks for streams after %d rounds", c.CommandName(), maxRounds)
}

// run decides and, when accepted, appends.
func (w *world) run(c Command) (Decision, error) {
	d, err := w.decide(c)
	if err != nil {
		return d, err
	}
	w.now = w.now.Add(time.Minute)
	return d, w.append(c.CommandName(), d)
}

// append writes a decision as a store does: releases, claims, events, closes;
// all or nothing.
func (w *world) append(command string, d Decision) error {
	claims := map[[2]string]StreamID{}
	for k, v := range w.claims {
		claims[k] = v
	}
	for _, c := range d.Releases {
		k := [2]string{c.Scope, c.Value}
		if claims[k] != c.Owner {
			return fmt.Errorf("%s releases %s %q, which %q holds", c.Owner, c.Scope, c.Value, claims[k])
		}
		delete(claims, k)
	}
	for _, c := range d.Claims {
		k := [2]string{c.Scope, c.Value}
		if holder, ok := claims[k]; ok && holder != c.Owner {
			return &Error{Code: TakenCode(c.Scope), Message: fmt.Sprintf("%s holds %s %q.", holder, c.Scope, c.Value)}
		}
		claims[k] = c.Owner
	}
	for _, ch := range d.Changes {
		if w.closed[ch.Stream] {
			return fmt.Errorf("%s writes to %s, which is closed", command, ch.Stream)
		}
		if _, err := ParseStreamID(string(ch.Stream)); err != nil {
			return fmt.Errorf("%s writes to %w", command, err)
		}
	}
	for _, ch := range d.Changes {
		if err := w.add(command, cmp.Or(ch.Owner, d.Account), ch); err != nil {
			return err
		}
	}
	w.claims = claims
	for _, id := range d.Closes {
		w.closed[id] = true
	}
	return nil
}

// add stores one event, encoded, so that every fold goes through the codec.
func (w *world) add(command string, account int64, ch Change) error {
	name, schema, data, err := Encode(ch.Event)
	if err != nil {
		return err
	}
	w.head++
	w.streams[ch.Stream] = append(w.streams[ch.Stream], Record{
		Position: w.head, Stream: ch.Stream, Version: Version(len(w.streams[ch.Stream]) + 1),
		Owner: account, Name: name, Schema: schema, Data: data, Recorded: w.now,
		Meta: Metadata{At: w.now, Actor: "key:test", Command: command},
	})
	return nil
}

// compact gives an event's or a state's JSON on one line.
func compact(v any) string {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err.Error()
	}
	return string(bytes.TrimSpace(b.Bytes()))
}
