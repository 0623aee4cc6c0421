package httpapi

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tunnox-net/tunnox/domain"
)

// Event is a record of the log in the API, without secrets.
type Event struct {
	Position domain.Position `json:"position" doc:"The position in the log" example:"42"`
	Stream   domain.StreamID `json:"stream" doc:"The event stream" example:"mapping-1001"`
	Version  domain.Version  `json:"version" doc:"The version of the event stream" example:"1"`
	Owner    *int64          `json:"owner" doc:"The account of the event" example:"100000001"`
	Name     string          `json:"name" doc:"The name of the event" example:"mapping_created"`
	Schema   int             `json:"schema" doc:"The schema of data for this name" example:"1"`
	ID       string          `json:"id" doc:"The id of the event; it never changes" example:"0190b4c8-6f0e-7c5d-9a53-1f1d5f0a8b11"`
	Data     any             `json:"data" doc:"The facts; secrets are replaced by [redacted]"`
	Meta     EventMeta       `json:"meta"`
	Recorded time.Time       `json:"recorded" doc:"The time at which the store wrote it" example:"2026-01-02T15:04:05Z"`
}

// EventMeta gives the actor of an event, the time, the address and the reason why it was
// allowed.
type EventMeta struct {
	At      time.Time `json:"at" doc:"The time of the decision" example:"2026-01-02T15:04:05Z"`
	Actor   string    `json:"actor" example:"key:admin"`
	Command string    `json:"command,omitempty" example:"create_mapping"`
	Source  string    `json:"source,omitempty" example:"127.0.0.1:50000"`
	Request string    `json:"request,omitempty" doc:"The X-Request-Id of the request that caused it" example:"01b7c1f0c7a94d4b9f1d3f7f9a5f6a10"`
	Cause   string    `json:"cause,omitempty"`
	Allowed string    `json:"allowed,omitempty" example:"role:admin"`
}

const redacted = "[redacted]"

// ShowEvent gives a record in the form of the API, without secrets, for somebody of an
// account. Addresses are those of the account's own commands, unless everything is
// theirs to see.
func ShowEvent(r domain.Record, userID int64, everything bool) (Event, error) {
	e, err := eventBody(r)
	if !everything && !ofAccount(r.Meta, userID) {
		e.Meta.Source = ""
	}
	return e, err
}

// ofAccount reports whether a user gave a command, with a login or a key.
func ofAccount(m domain.Metadata, userID int64) bool {
	id := "user:" + formatID(userID)
	return userID != 0 && (m.Actor == id || slices.Contains(strings.Fields(m.Allowed), id))
}

// event shows a record to who asks. The address that a command came from is for the
// account that gave it, and for admins: who shares a mapping does not learn where the
// others live.
func (a *api) event(ctx context.Context, r domain.Record) (Event, error) {
	e, err := eventBody(r)
	if e.Meta.Source != "" && !a.seesSource(ctx, r.Meta) {
		e.Meta.Source = ""
	}
	return e, err
}

func (a *api) seesSource(ctx context.Context, m domain.Metadata) bool {
	who := identity(ctx)
	if who.admin() || ofAccount(m, who.UserID) {
		return true
	}
	text, ok := strings.CutPrefix(m.Actor, "client:")
	id, err := strconv.ParseInt(text, 10, 64)
	if !ok || err != nil || who.UserID == 0 {
		return false
	}
	client, found, err := a.config.Reader.Client(ctx, id)
	return err == nil && found && client.UserID == who.UserID
}

func eventBody(r domain.Record) (Event, error) {
	e := Event{Position: r.Position, Stream: r.Stream, Version: r.Version, Name: r.Name, Schema: r.Schema,
		ID: r.ID.String(), Data: r.Data, Meta: EventMeta(r.Meta), Recorded: r.Recorded.UTC()}
	if r.Owner != 0 {
		e.Owner = &r.Owner
	}
	if hide := domain.SecretFields(r.Name); hide != nil {
		var data map[string]any
		if err := json.Unmarshal(r.Data, &data); err != nil {
			return e, fmt.Errorf("redact record %d: %w", r.Position, err)
		}
		for _, field := range hide {
			if _, ok := data[field]; ok {
				data[field] = redacted
			}
		}
		e.Data = data
	}
	return e, nil
}

// eventsInput asks for a page of the log. The log needs no Min-Position: it is
// never behind itself.
type eventsInput struct {
	After int64 `query:"after" minimum:"0" doc:"Only events after this position. Use next of the previous page, or the last position that you have seen" example:"42"`
	Limit int   `query:"limit" minimum:"1" maximum:"500" default:"50" doc:"The most items to return"`
}

type historyInput struct {
	IDPath
	After int64 `query:"after" minimum:"0" doc:"Only events after this version. Use next of the previous page" example:"3"`
	Limit int   `query:"limit" minimum:"1" maximum:"500" default:"50" doc:"The most items to return"`
}

func (a *api) registerHistory() {
	huma.Register(a.huma, operation(http.MethodGet, "/events", "list-events", "events", "Read the log", errorsOfList...), a.listEvents)
	for _, of := range []struct {
		path, id, what string
		stream         func(int64) domain.StreamID
		code           domain.Code
	}{
		{"/users", "user", "user", domain.UserStream, domain.CodeUserNotFound},
		{"/clients", "client", "client", domain.ClientStream, domain.CodeClientNotFound},
		{"/mappings", "mapping", "mapping", domain.MappingStream, domain.CodeMappingNotFound},
	} {
		op := operation(http.MethodGet, of.path+"/{id}/history", of.id+"-history", "events",
			"Everything that happened to a "+of.what+", also to a deleted one", errorsOfGet...)
		huma.Register(a.huma, op, func(ctx context.Context, in *historyInput) (*pageAnswer[Event], error) {
			return a.history(ctx, of.stream(in.ID), in, notFound(of.code, "There never was such a "+of.what+"."))
		})
	}
}

func (a *api) listEvents(ctx context.Context, in *eventsInput) (*pageAnswer[Event], error) {
	records, err := a.config.History.ReadAll(ctx, domain.Position(in.After), in.Limit+1)
	if err != nil {
		return nil, a.unreadable(ctx, err)
	}
	return a.eventPage(ctx, records, in.Limit, func(e Event) int64 { return int64(e.Position) })
}

func (a *api) history(ctx context.Context, stream domain.StreamID, in *historyInput, none error) (*pageAnswer[Event], error) {
	records, err := a.config.History.ReadStream(ctx, stream, domain.Version(in.After), in.Limit+1)
	if err == nil && len(records) == 0 && in.After > 0 {
		// The page does not tell the end of a history from a history that does not exist.
		var first []domain.Record
		if first, err = a.config.History.ReadStream(ctx, stream, 0, 1); len(first) > 0 {
			none = nil
		}
	} else if len(records) > 0 {
		none = nil
	}
	if err != nil {
		return nil, a.unreadable(ctx, err)
	}
	if none != nil {
		return nil, none
	}
	return a.eventPage(ctx, records, in.Limit, func(e Event) int64 { return int64(e.Version) })
}

// eventPage gives at most limit of the records. One record more means that another page
// follows.
func (a *api) eventPage(ctx context.Context, records []domain.Record, limit int, place func(Event) int64) (*pageAnswer[Event], error) {
	events := make([]Event, min(len(records), limit))
	for i := range events {
		var err error
		if events[i], err = a.event(ctx, records[i]); err != nil {
			return nil, a.refusal(ctx, err)
		}
	}
	next := int64(0)
	if len(records) > limit {
		next = place(events[limit-1])
	}
	return pageOf(events, next, func(e Event) Event { return e }), nil
}
