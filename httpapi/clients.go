package httpapi

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"net/http"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/projections"
)

// Client is a client in the API. Its credential is shown only at its creation.
type Client struct {
	ClientID      int64      `json:"client_id" example:"600000000"`
	ClientType    string     `json:"client_type" enum:"managed,anonymous" example:"managed"`
	UserID        *int64     `json:"user_id" doc:"null for an anonymous client" example:"100000001"`
	Name          string     `json:"name" example:"office"`
	Description   string     `json:"description" example:"the machine under the stairs"`
	ClientName    string     `json:"client_name" deprecated:"true" doc:"The older name of name" example:"office"`
	ClientDesc    string     `json:"client_desc" deprecated:"true" doc:"The older name of description" example:"the machine under the stairs"`
	Commands      string     `json:"commands" enum:"none,own,all" doc:"Whose agents may have connections led to this client, and what its own may command: see PUT" example:"own"`
	Status        string     `json:"status" enum:"online,offline,disabled,unknown" doc:"unknown: the directory of sessions does not answer" example:"online"`
	NodeID        *string    `json:"node_id" doc:"The node that holds the client's session; null when offline" example:"node-001"`
	LastSeen      *time.Time `json:"last_seen" doc:"null = never" example:"2026-01-02T15:04:05Z"`
	AgentVersion  *string    `json:"agent_version" doc:"The version of the connected agent; null when offline" example:"0.1.0"`
	Transport     *string    `json:"transport" doc:"Over what the connected agent reaches the node: tls, wss, ws or quic; null when offline or not known" example:"quic"`
	Protocols     []string   `json:"protocols" nullable:"false" doc:"What the connected agent carries; empty when offline or not known" example:"[\"tcp\",\"udp\"]"`
	ConfigVersion *int64     `json:"config_version" doc:"The configuration version the connected agent has applied; null when offline" example:"42"`
	CreatedAt     time.Time  `json:"created_at" example:"2026-01-02T15:04:05Z"`
	UpdatedAt     time.Time  `json:"updated_at" example:"2026-01-02T15:04:05Z"`
}

// ClientWithCredential is a client with its credential, shown this once. Its name
// is also that of the schema: NewClient is what generated clients call their
// constructor.
type ClientWithCredential struct {
	Client
	AuthCode string `json:"auth_code,omitempty" doc:"The credential of the agent. It is shown once and not stored: a repeat with the same Idempotency-Key does not show it" example:"tnx_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"`
}

// CreateClientBody is the body of POST /clients.
type CreateClientBody struct {
	UserID      int64   `json:"user_id,omitempty" minimum:"0" doc:"The user of the client. Default: the caller" example:"100000001"`
	Name        *string `json:"name,omitempty" minLength:"1" maxLength:"100" doc:"A name for people. It is required, here or as client_name" example:"office"`
	Description *string `json:"description,omitempty" maxLength:"1000" example:"the machine under the stairs"`
	ClientName  *string `json:"client_name,omitempty" deprecated:"true" minLength:"1" maxLength:"100" doc:"The older name of name" example:"office"`
	ClientDesc  *string `json:"client_desc,omitempty" deprecated:"true" maxLength:"1000" doc:"The older name of description" example:"the machine under the stairs"`
	Commands    string  `json:"commands,omitempty" enum:"none,own,all" default:"own" doc:"Whose agents may have connections led to this client. own: its own agent; all: those of all the user's clients; none: nobody's, and its own agent can command nothing" example:"own"`
}

// ChangeClientBody is the body of PUT /clients/{id}. Fields that are absent or null do
// not change.
type ChangeClientBody struct {
	ClientID    *int64  `json:"client_id,omitempty" doc:"May be sent, but cannot be changed" example:"600000000"`
	UserID      *int64  `json:"user_id,omitempty" doc:"May be sent, but cannot be changed" example:"100000001"`
	Name        *string `json:"name,omitempty" minLength:"1" maxLength:"100" example:"office"`
	Description *string `json:"description,omitempty" maxLength:"1000" example:"the machine under the stairs"`
	ClientName  *string `json:"client_name,omitempty" deprecated:"true" minLength:"1" maxLength:"100" doc:"The older name of name" example:"office"`
	ClientDesc  *string `json:"client_desc,omitempty" deprecated:"true" maxLength:"1000" doc:"The older name of description" example:"the machine under the stairs"`
	Commands    *string `json:"commands,omitempty" enum:"none,own,all" doc:"Whose agents may have connections led to this client. own: its own agent; all: those of all the user's clients; none: nobody's, and its own agent can command nothing. Mappings that exist stay, and users may lead connections there in any case" example:"all"`
}

type createClientInput struct {
	KeyHeader
	Body CreateClientBody
}

type changeClientInput struct {
	IDPath
	MatchHeader
	Body ChangeClientBody
}

type clientAnswer struct {
	WriteAnswer
	Body Client
}

func (a *api) registerClients() {
	op := func(method, path, id, summary string, errs ...int) huma.Operation {
		return operation(method, path, id, "clients", summary, errs...)
	}
	created := op(http.MethodPost, "/clients", "create-client", "Create a client of a user", errorsOfPost...)
	created.DefaultStatus = http.StatusCreated
	huma.Register(a.huma, created, a.createClient)
	huma.Register(a.huma, op(http.MethodGet, "/clients", "list-clients", "List clients", errorsOfList...), a.listClients)
	huma.Register(a.huma, conditional(op(http.MethodGet, "/clients/{id}", "get-client", "Show a client", errorsOfGet...)), a.getClient)
	huma.Register(a.huma, op(http.MethodPut, "/clients/{id}", "change-client", "Change a client's name or description, or whose agents may lead connections to it", errorsOfPut...), a.changeClient)
	huma.Register(a.huma, op(http.MethodDelete, "/clients/{id}", "delete-client", "Delete a client with all mappings it is part of", errorsOfWrite...), a.deleteClient)
	huma.Register(a.huma, op(http.MethodPost, "/clients/{id}/enable", "enable-client", "Let a client connect again", errorsOfWrite...), a.setClientEnabled(true))
	huma.Register(a.huma, op(http.MethodPost, "/clients/{id}/disable", "disable-client", "End a client's session and let it not connect", errorsOfWrite...), a.setClientEnabled(false))
	huma.Register(a.huma, op(http.MethodPost, "/clients/{id}/rotate-credential", "rotate-credential", "Replace a client's credential; the old one ends at once", errorsOfWrite...), a.rotateCredential)
	huma.Register(a.huma, op(http.MethodGet, "/users/{id}/clients", "list-clients-of-user", "List a user's clients", errorsOfGet...), a.listClientsOfUser)
}

func (a *api) createClient(ctx context.Context, in *createClientInput) (*struct {
	CreatedAnswer
	Body ClientWithCredential
}, error) {
	user, err := forUser(ctx, in.Body.UserID)
	if err != nil {
		return nil, err
	}
	b := in.Body
	name, description, blame, err := clientTexts(b.Name, b.ClientName, b.Description, b.ClientDesc)
	if err != nil {
		return nil, err
	}
	code, key, err := a.config.NewCredential()
	if err != nil {
		return nil, a.refusal(ctx, fmt.Errorf("draw credential: %w", err))
	}
	r, err := a.create(ctx, in.KeyHeader, in.Body, domain.SequenceClient, func(id int64) domain.Command {
		return domain.CreateClient{ID: id, UserID: user, Name: textOr(name), Description: textOr(description), PublicKey: key,
			Commands: domain.Commands(b.Commands)}
	})
	if err != nil {
		return nil, a.refusal(ctx, blame(inBody(err)))
	}
	c, err := made[*domain.Client](r)
	if err != nil {
		return nil, a.refusal(ctx, err)
	}
	var body ClientWithCredential
	if r.Duplicate {
		body.Client = a.clientBodies(ctx, c)[0]
	} else {
		body.Client = clientBody(c, &ClientPresence{}) // no agent has connected yet
		body.AuthCode = code                           // a repeat draws another code, which is not valid
	}
	return &struct {
		CreatedAnswer
		Body ClientWithCredential
	}{createdOf(r, "clients"), body}, nil
}

func (a *api) rotateCredential(ctx context.Context, in *changeInput) (*struct {
	WriteAnswer
	Body ClientWithCredential
}, error) {
	code, key, err := a.config.NewCredential()
	if err != nil {
		return nil, a.refusal(ctx, fmt.Errorf("draw credential: %w", err))
	}
	answer, err := a.clientCommand(ctx, in.MatchHeader, nil, domain.RotateCredential{ID: in.ID, PublicKey: key})
	if err != nil {
		return nil, err
	}
	body := ClientWithCredential{Client: answer.Body}
	if answer.Replayed == "" {
		body.AuthCode = code
	}
	return &struct {
		WriteAnswer
		Body ClientWithCredential
	}{answer.WriteAnswer, body}, nil
}

// ClientFilter narrows a list of clients down.
type ClientFilter struct {
	Status string `query:"status" enum:"online,offline,disabled" doc:"Only clients of this status" example:"online"`
	Type   string `query:"type" enum:"managed,anonymous" doc:"Only clients of this type" example:"managed"`
}

func (f ClientFilter) none() bool { return f == ClientFilter{} }

// pass gives the clients of a page that pass the filter. The directory is asked once for
// the whole page.
func (a *api) passClients(ctx context.Context, f ClientFilter, page []projections.ClientRow) ([]projections.ClientRow, error) {
	page = slices.DeleteFunc(page, func(c projections.ClientRow) bool { return f.Type != "" && f.Type != string(c.Kind) })
	if f.Status == "" {
		return page, nil
	}
	if _, past := momentOf(ctx); past {
		return nil, invalid("query.status", "cannot be asked with as_of: who was online is not kept")
	}
	clients := make([]*domain.Client, len(page))
	for i := range page {
		clients[i] = &page[i].Client
	}
	var passed []projections.ClientRow
	for i, body := range a.clientBodies(ctx, clients...) {
		switch body.Status {
		case f.Status:
			passed = append(passed, page[i])
		case "unknown":
			return nil, problem(http.StatusServiceUnavailable, codeReadUnavailable, "The directory of sessions does not answer now. Try again, or leave the status out.")
		}
	}
	return passed, nil
}

func (a *api) listClients(ctx context.Context, in *struct {
	PageInput
	OwnerFilter
	ClientFilter
}) (*pageAnswer[Client], error) {
	index := projections.AllClients
	if owner, ok, err := in.owner(ctx); err != nil {
		return nil, err
	} else if ok {
		index = projections.ClientsOfUser(owner)
	}
	return a.clientsOf(ctx, index, in.PageInput, in.ClientFilter)
}

func (a *api) listClientsOfUser(ctx context.Context, in *struct {
	IDPath
	PageInput
	ClientFilter
}) (*pageAnswer[Client], error) {
	if _, err := a.user(ctx, in.ID, in.MinPosition); err != nil {
		return nil, err
	}
	return a.clientsOf(ctx, projections.ClientsOfUser(in.ID), in.PageInput, in.ClientFilter)
}

func (a *api) clientsOf(ctx context.Context, index projections.Index, in PageInput, f ClientFilter) (*pageAnswer[Client], error) {
	if err := a.shows(ctx, in.MinPosition); err != nil {
		return nil, err
	}
	read := func(after int64, limit int) ([]projections.ClientRow, int64, error) {
		return a.config.Reader.Clients(ctx, index, after, limit)
	}
	var rows []projections.ClientRow
	var next int64
	var err error
	if f.none() {
		rows, next, err = read(in.After, in.Limit)
	} else {
		rows, next, err = filtered(in.After, in.Limit, func(c projections.ClientRow) int64 { return c.ID }, read,
			func(page []projections.ClientRow) ([]projections.ClientRow, error) {
				return a.passClients(ctx, f, page)
			})
	}
	if p, ok := errors.AsType[*Problem](err); ok {
		return nil, p
	}
	if err != nil {
		return nil, a.unlisted(ctx, err)
	}
	clients := make([]*domain.Client, len(rows))
	for i := range rows {
		clients[i] = &rows[i].Client
	}
	return pageOf(a.clientBodies(ctx, clients...), next, func(c Client) Client { return c }), nil
}

func (a *api) getClient(ctx context.Context, in *oneInput) (*struct {
	ReadAnswer
	Body Client
}, error) {
	row, err := a.client(ctx, in.ID, in.MinPosition)
	if err != nil {
		return nil, err
	}
	body := a.clientBodies(ctx, &row.Client)[0]
	answer, err := in.tagged(tagOf(row.Version, body.Status, shown(body.NodeID), shown(body.LastSeen), shown(body.AgentVersion), shown(body.Transport), body.Protocols, shown(body.ConfigVersion)))
	if err != nil {
		return nil, err
	}
	return &struct {
		ReadAnswer
		Body Client
	}{answer, body}, nil
}

// tagOf gives the ETag of an answer that holds data without a version, such as presence:
// a hash of the answer.
func tagOf(version domain.Version, beside ...any) string {
	h := fnv.New64a()
	fmt.Fprint(h, beside...)
	return fmt.Sprintf(`"%d-%x"`, version, h.Sum64())
}

func shown[T any](p *T) any {
	if p == nil {
		return "|"
	}
	return *p
}

func (a *api) changeClient(ctx context.Context, in *changeClientInput) (*clientAnswer, error) {
	if in.Body.ClientID != nil && *in.Body.ClientID != in.ID {
		return nil, invalid("body.client_id", fmt.Sprintf("cannot be changed, is %d", in.ID))
	}
	b := in.Body
	name, description, blame, err := clientTexts(b.Name, b.ClientName, b.Description, b.ClientDesc)
	if err != nil {
		return nil, err
	}
	r, err := a.submit(ctx, in.MatchHeader, b, domain.ChangeClient{ID: in.ID, Name: name, Description: description,
		Commands: (*domain.Commands)(b.Commands), UserID: b.UserID})
	if err != nil {
		return nil, a.refusal(ctx, blame(err))
	}
	return a.clientAnswer(ctx, r)
}

func (a *api) setClientEnabled(enabled bool) func(context.Context, *changeInput) (*clientAnswer, error) {
	return func(ctx context.Context, in *changeInput) (*clientAnswer, error) {
		return a.clientCommand(ctx, in.MatchHeader, nil, domain.SetClientEnabled{ID: in.ID, Enabled: enabled})
	}
}

func (a *api) deleteClient(ctx context.Context, in *changeInput) (*WriteAnswer, error) {
	return a.end(ctx, in, domain.DeleteClient{ID: in.ID})
}

func (a *api) clientCommand(ctx context.Context, h MatchHeader, body any, c domain.Command) (*clientAnswer, error) {
	r, err := a.submit(ctx, h, body, c)
	if err != nil {
		return nil, a.refusal(ctx, err)
	}
	return a.clientAnswer(ctx, r)
}

func (a *api) clientAnswer(ctx context.Context, r domain.Receipt) (*clientAnswer, error) {
	state, err := stateOf[*domain.Client](r)
	if err != nil {
		return nil, a.refusal(ctx, err)
	}
	return &clientAnswer{answerOf(r), a.clientBodies(ctx, state)[0]}, nil
}

// clientBodies joins clients with their presence, with one question to the directory.
func (a *api) clientBodies(ctx context.Context, clients ...*domain.Client) []Client {
	bodies := make([]Client, len(clients))
	present := a.presence(ctx, clients)
	for i, c := range clients {
		var p *ClientPresence
		if present != nil {
			p = &present[i]
		}
		bodies[i] = clientBody(c, p)
	}
	return bodies
}

// clientBody joins a client with its presence; nil = unknown.
func clientBody(c *domain.Client, p *ClientPresence) Client {
	b := Client{ClientID: c.ID, ClientType: string(c.Kind), Name: c.Name, Description: c.Description, ClientName: c.Name, ClientDesc: c.Description, Commands: string(c.Commands),
		Status: "unknown", Protocols: []string{}, CreatedAt: c.CreatedAt, UpdatedAt: c.UpdatedAt}
	if c.UserID != 0 {
		b.UserID = &c.UserID
	}
	if p != nil {
		b.join(*p)
	}
	if c.Disabled {
		b.Status = "disabled"
	}
	return b
}

func (c *Client) join(p ClientPresence) {
	c.Status = "offline"
	if !p.LastSeen.IsZero() {
		seen := p.LastSeen.UTC()
		c.LastSeen = &seen
	}
	if p.Online {
		c.Status, c.NodeID, c.AgentVersion, c.ConfigVersion = "online", &p.Node, &p.AgentVersion, &p.ConfigVersion
		if p.Transport != "" {
			c.Transport = &p.Transport
		}
		c.Protocols = append(c.Protocols, p.Protocols...)
	}
}

// presence gives the nodes of the clients, or nil when they are unknown: the directory
// does not answer, or the question is about the past. A client can be shown without its
// presence.
func (a *api) presence(ctx context.Context, clients []*domain.Client) []ClientPresence {
	if _, past := momentOf(ctx); past {
		return nil
	}
	if a.config.Presence == nil || len(clients) == 0 {
		return make([]ClientPresence, len(clients))
	}
	ids := make([]int64, len(clients))
	for i, c := range clients {
		ids[i] = c.ID
	}
	present, err := a.config.Presence.Lookup(ctx, ids...)
	if err != nil || len(present) != len(ids) {
		a.logger.WarnContext(ctx, "directory cannot be asked", "request", tracked(ctx).id, "error", err)
		return nil
	}
	return present
}
