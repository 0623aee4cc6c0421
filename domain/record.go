package domain

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// StreamID names the event stream of one aggregate: a category, a dash and a
// number, for example "mapping-1001". That of a node is the node's id, whose number
// has three digits at least: see [Kind].
type StreamID string

// The categories of event streams.
const (
	CategoryUser    = "user"
	CategoryClient  = "client"
	CategoryMapping = "mapping"
	CategoryQuota   = "quota"
	CategoryKey     = "key"
	CategoryLogin   = "login"
	CategoryShare   = "share"
	CategoryInvite  = "invite"
	CategoryDomain  = "domain"
	CategoryErasure = "erasure"
	CategoryWebhook = "webhook"
	CategoryNode    = "node"
	CategoryPort    = "port"
	CategoryHost    = "host"
)

// ParseStreamID checks that s is a category this package knows, a dash and a
// positive decimal number.
func ParseStreamID(s string) (StreamID, error) {
	category, number, ok := strings.Cut(s, "-")
	n, err := strconv.ParseInt(number, 10, 64)
	if !ok || err != nil || n <= 0 || string(streamID(category, n)) != s {
		return "", fmt.Errorf("stream id %q: want category-number", s)
	}
	if _, ok := kindOf[category]; ok {
		return StreamID(s), nil
	}
	return "", fmt.Errorf("stream id %q: unknown category %q", s, category)
}

func streamID(category string, n int64) StreamID {
	number := strconv.FormatInt(n, 10)
	if short := kindOf[category].Digits - len(number); short > 0 {
		number = strings.Repeat("0", short) + number
	}
	return StreamID(category + "-" + number)
}

// Category is the part of the id before the dash.
func (s StreamID) Category() string {
	category, _, _ := strings.Cut(string(s), "-")
	return category
}

// Number is the part of the id behind the dash, or 0 when there is none.
func (s StreamID) Number() int64 {
	_, number, _ := strings.Cut(string(s), "-")
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// Version is the place of a record in its event stream, from 1 without holes.
// Version 0 is a stream that has no records.
type Version int64

// Position is the place of a record among all records, from 1 without holes,
// in the order in which appends were committed. Readers order by it.
type Position int64

// EventID identifies one record for ever, also when two histories that forked
// use the same position. It is a UUID; the store draws it.
type EventID [16]byte

// IsZero reports whether the id was never set.
func (id EventID) IsZero() bool { return id == EventID{} }

// String gives the usual text form of a UUID (RFC 9562).
func (id EventID) String() string {
	h := hex.EncodeToString(id[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// ParseEventID reads what String wrote.
func ParseEventID(s string) (EventID, error) {
	var id EventID
	b, err := hex.DecodeString(strings.ReplaceAll(s, "-", ""))
	if err != nil || len(b) != len(id) {
		return id, fmt.Errorf("event id %q: want a UUID", s)
	}
	copy(id[:], b)
	if !strings.EqualFold(id.String(), s) {
		return EventID{}, fmt.Errorf("event id %q: want the dashes of a UUID", s)
	}
	return id, nil
}

// MarshalText implements [encoding.TextMarshaler].
func (id EventID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (id *EventID) UnmarshalText(b []byte) (err error) {
	*id, err = ParseEventID(string(b))
	return err
}

// Metadata says who caused a record, when, from where and why it was allowed.
// It is stored with every record and never holds a secret.
type Metadata struct {
	// At is the time that came in with the command. Apply uses it, so a replay
	// sees the time of the original.
	At time.Time `json:"at"`
	// Actor is the caller: "key:<name>", "user:<id>", "client:<id>" or "system".
	Actor string `json:"actor"`
	// Command is the name of the command that was decided.
	Command string `json:"command,omitempty"`
	// Source is the network address the command came from, host:port.
	Source string `json:"source,omitempty"`
	// Request is the id of the HTTP request or session message behind it.
	Request string `json:"request,omitempty"`
	// Cause is the command or record that led to this one, when it was not a person.
	Cause string `json:"cause,omitempty"`
	// Allowed gives the reason why the command was allowed, for example "role:admin".
	Allowed string `json:"allowed,omitempty"`
}

// Record is an event as stored. Data holds the exact bytes the store keeps;
// decode them with [Record.Event].
type Record struct {
	Position Position        `json:"position"`
	Stream   StreamID        `json:"stream"`
	Version  Version         `json:"version"`
	Owner    int64           `json:"owner,omitempty"` // the account it belongs to, 0 = none
	Name     string          `json:"name"`
	Schema   int             `json:"schema"`
	ID       EventID         `json:"id"`
	Data     json.RawMessage `json:"data"`
	Meta     Metadata        `json:"meta"`
	Recorded time.Time       `json:"recorded"` // by the store's clock, for people; no decision uses it
}

// Event decodes the record's data, upcasting old schemas. An unknown name or
// schema is an error of code [CodeUnknownEvent]: a follower halts on it rather
// than skip a fact.
func (r Record) Event() (Event, error) { return Decode(r.Name, r.Schema, r.Data) }
