package httpapi

import (
	"context"
	"maps"
	"net/http"
	"slices"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/projections"
	"github.com/tunnox-net/tunnox/usage"
)

// mediaDryRun is the media type of the answer to a dry run. It differs from that of a
// real answer.
const mediaDryRun = "application/vnd.tunnox.dry-run+json"

// PlannedEvent is an event a command would write.
type PlannedEvent struct {
	Stream  domain.StreamID `json:"stream" doc:"The event stream. The number of a new resource is an example: the command chooses its own" example:"mapping-1001"`
	Version domain.Version  `json:"version" doc:"The version of the event stream" example:"2"`
	Owner   *int64          `json:"owner" doc:"The account that the event would belong to" example:"100000001"`
	Name    string          `json:"name" doc:"The name of the event" example:"mapping_disabled"`
	Data    any             `json:"data" doc:"The facts; secrets are replaced by [redacted]"`
}

// Ended is what a command would end that is alive now.
type Ended struct {
	Clients  []int64 `json:"clients" nullable:"false" doc:"Connected clients whose sessions would end. For the drain of a node only their number is given, as sessions" example:"[600000000]"`
	Mappings []int64 `json:"mappings" nullable:"false" doc:"Mappings whose streams would end" example:"[1001]"`
	Sessions *int    `json:"sessions" doc:"The number of sessions that would end; null when unknown" example:"1"`
	Streams  *int64  `json:"streams" doc:"The open streams of those mappings; null when unknown" example:"3"`
}

// DryRun is the answer to a command with dry_run=true. It travels as an error, because
// its type differs from the handler's answer.
type DryRun struct {
	Command string         `json:"command" doc:"The name of the command" example:"disable_mapping"`
	Events  []PlannedEvent `json:"events" nullable:"false" doc:"The events that would be written, in order; empty when nothing would change"`
	Ends    Ended          `json:"ends" doc:"The mappings, sessions and streams that would end"`
}

// Error implements error.
func (d *DryRun) Error() string { return "dry run of " + d.Command }

// GetStatus implements [huma.StatusError].
func (d *DryRun) GetStatus() int { return http.StatusOK }

// ContentType implements [huma.ContentTypeFilter].
func (d *DryRun) ContentType(string) string { return mediaDryRun }

var _ huma.StatusError = (*DryRun)(nil)

// documentDryRuns adds the answer of a dry run to every operation that has it.
func (a *api) documentDryRuns() {
	schema := a.huma.OpenAPI().Components.Schemas.Schema(typeOf[DryRun](), true, "")
	for _, path := range a.huma.OpenAPI().Paths {
		for _, op := range []*huma.Operation{path.Post, path.Put, path.Delete} {
			if op == nil || !slices.ContainsFunc(op.Parameters, func(p *huma.Param) bool { return p.Name == "dry_run" }) {
				continue
			}
			ok := op.Responses["200"]
			if ok == nil {
				ok = &huma.Response{Description: "With dry_run=true: nothing was written"}
				op.Responses["200"] = ok
			}
			if ok.Content == nil {
				ok.Content = map[string]*huma.MediaType{}
			}
			ok.Content[mediaDryRun] = &huma.MediaType{Schema: schema}
		}
	}
}

// dryRun gives the result that a submission would have.
func (a *api) dryRun(ctx context.Context, s domain.Submission) error {
	if !identity(ctx).admin() {
		// Whether a name or an address belongs to somebody is for admins, who see all
		// users. The command itself refuses it, and changes the caller's own otherwise.
		s.Untold = []string{domain.ClaimUsername, domain.ClaimEmail}
	}
	r, err := a.config.Executor.Preview(ctx, s)
	if err != nil {
		return err
	}
	d := &DryRun{Command: s.Command.CommandName(), Events: []PlannedEvent{}, Ends: nothingEnds()}
	if r.Duplicate {
		return d // the key was used: nothing would be written again
	}
	for _, record := range r.Records {
		e, err := eventBody(record)
		if err != nil {
			return err
		}
		d.Events = append(d.Events, PlannedEvent{Stream: e.Stream, Version: e.Version, Owner: e.Owner, Name: e.Name, Data: e.Data})
	}
	if d.Ends, err = a.ends(ctx, r.Records); err != nil {
		return a.unlisted(ctx, err)
	}
	return d
}

// nothingEnds is the result of a command that ends nothing.
func nothingEnds() Ended {
	return Ended{Clients: []int64{}, Mappings: []int64{}, Sessions: new(int), Streams: new(int64)}
}

// ends finds out what the records would end.
func (a *api) ends(ctx context.Context, records []domain.Record) (Ended, error) {
	clients, mappings := map[int64]bool{}, map[int64]bool{}
	sessions := new(int) // nil: unknown
	for _, r := range records {
		event, err := r.Event()
		if err != nil {
			return Ended{}, err
		}
		switch id := r.Stream.Number(); event.(type) {
		case domain.UserDisabled, domain.UserDeleted:
			err = a.gather(ctx, projections.ClientsOfUser(id), projections.MappingsOfUser(id), clients, mappings)
		case domain.ClientDisabled, domain.ClientDeleted, domain.ClientCredentialRotated, domain.ClientClaimed,
			domain.ClientDisconnectRequested:
			clients[id] = true
			err = a.gather(ctx, "", projections.MappingsOfClient(id), clients, mappings)
		case domain.MappingDisabled, domain.MappingDeleted:
			mappings[id] = true
		case domain.NodeDrainRequested:
			// The node lets its streams end by themselves.
			if n, err := a.node(ctx, string(r.Stream)); err == nil {
				sessions = &n.Clients
			} else {
				sessions = nil
			}
		}
		if err != nil {
			return Ended{}, err
		}
	}
	ended := Ended{Clients: []int64{}, Mappings: slices.Sorted(maps.Keys(mappings)), Sessions: sessions}
	if ended.Mappings == nil {
		ended.Mappings = []int64{}
	}
	ids := slices.Sorted(maps.Keys(clients))
	if a.config.Presence != nil && len(ids) > 0 {
		ended.Sessions = nil
		present, err := a.config.Presence.Lookup(ctx, ids...)
		if err == nil && len(present) == len(ids) {
			n := 0
			for i, p := range present {
				if p.Online {
					ended.Clients = append(ended.Clients, ids[i])
					n += max(1, len(p.Sessions))
				}
			}
			ended.Sessions = &n
		}
	}
	if len(ended.Mappings) == 0 {
		ended.Streams = new(int64)
	} else if a.config.Usage != nil {
		// The numbers come from the last reports of the forwarders.
		if open, err := a.config.Usage.Live(ctx, a.now(), usage.OfMapping, ended.Mappings...); err == nil {
			ended.Streams = new(int64)
			for _, n := range open {
				*ended.Streams += n
			}
		}
	}
	return ended, nil
}

// gather adds the ids that two indexes list, what was written here just now among
// them; "" lists nothing.
func (a *api) gather(ctx context.Context, ofClients, ofMappings projections.Index, clients, mappings map[int64]bool) error {
	if err := a.shows(ctx, 0); err != nil {
		return err
	}
	const page = 500
	for after := int64(0); ofClients != ""; {
		rows, next, err := a.config.Reader.Clients(ctx, ofClients, after, page)
		if err != nil {
			return err
		}
		for _, c := range rows {
			clients[c.ID] = true
		}
		if after = next; next == 0 {
			break
		}
	}
	for after := int64(0); ; {
		rows, next, err := a.config.Reader.Mappings(ctx, ofMappings, after, page)
		if err != nil {
			return err
		}
		for _, m := range rows {
			mappings[m.ID] = true
		}
		if after = next; next == 0 {
			return nil
		}
	}
}
