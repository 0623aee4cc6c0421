package httpapi

import (
	"context"
	"net/http"
	"slices"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tunnox-net/tunnox/domain"
)

// Disconnected is the answer of POST /clients/{id}/disconnect.
type Disconnected struct {
	ClientID int64    `json:"client_id" example:"600000000"`
	Nodes    []string `json:"nodes" nullable:"false" doc:"The nodes that held sessions of the client at the time of the request; empty when it was not connected" example:"[\"node-001\"]"`
}

type disconnectAnswer struct {
	WriteAnswer
	Body Disconnected
}

func (a *api) registerDisconnect() {
	op := operation(http.MethodPost, "/clients/{id}/disconnect", "disconnect-client", "clients", "End a client's sessions; its agent may come back", errorsOfWrite...)
	op.Description = "What is in the log is that it was asked for, and of which sessions. A repeat under the same Idempotency-Key ends no session that began since. " +
		"With 503 `directory_unavailable` the detail says whether it is in the log."
	huma.Register(a.huma, op, a.disconnectClient)
}

// disconnectClient writes the request into the log and then ends the sessions. It
// succeeds also when the client has none.
//
// Nodes do not learn of the request from the log, because a node cannot tell there
// whether a session began before or after it. The directory can, and it notifies only
// the nodes with sessions of the client.
func (a *api) disconnectClient(ctx context.Context, in *changeInput) (*disconnectAnswer, error) {
	sessions, err := a.sessions(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	c := domain.DisconnectClient{ID: in.ID}
	for _, s := range sessions {
		c.Nodes, c.Epoch = append(c.Nodes, s.Node), max(c.Epoch, s.Epoch)
	}
	slices.Sort(c.Nodes)
	r, err := a.submit(ctx, in.MatchHeader, nil, c)
	if err != nil {
		return nil, a.refusal(ctx, err)
	}
	asked, err := disconnectOf(r)
	if err != nil {
		return nil, a.refusal(ctx, err)
	}
	// A repeat completes a first request that failed after the append.
	meant := func(s ClientSession) bool { return s.Epoch <= asked.Epoch }
	if a.config.Nodes != nil && (!r.Duplicate || slices.ContainsFunc(sessions, meant)) {
		if _, err := a.config.Nodes.Disconnect(ctx, in.ID); err != nil {
			return nil, a.unfinished(ctx, err, r.Position)
		}
	}
	return &disconnectAnswer{answerOf(r), Disconnected{ClientID: in.ID, Nodes: append([]string{}, asked.Nodes...)}}, nil
}

// sessions gives the present sessions of a client.
func (a *api) sessions(ctx context.Context, client int64) ([]ClientSession, error) {
	if a.config.Presence == nil {
		return nil, nil
	}
	present, err := a.config.Presence.Lookup(ctx, client)
	if err != nil {
		return nil, a.undirected(ctx, err)
	}
	if len(present) == 0 {
		return nil, nil
	}
	return present[0].Sessions, nil
}

// disconnectOf gives the request of a receipt.
func disconnectOf(r domain.Receipt) (asked domain.ClientDisconnectRequested, err error) {
	for _, record := range r.Records {
		event, err := record.Event()
		if err != nil {
			return asked, err
		}
		if e, ok := event.(domain.ClientDisconnectRequested); ok {
			asked = e
		}
	}
	return asked, nil
}
