package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/tunnox-net/tunnox/domain"
)

// prefix is the base of everything that needs a key.
const prefix = "/api/v1"

// Config lists the parts of an API. Executor, History, Search, Reader, Past,
// NewCredential and at least one key are required.
type Config struct {
	Executor Executor
	History  History
	Search   Search
	Reader   Reader
	Past     Past
	Presence Presence // nil: every client is offline
	Nodes    Nodes    // nil: there are none
	Usage    Usage    // nil: usage is unknown
	Webhooks Webhooks // nil: there are none, and no routes for them

	WebhookHTTP bool // URLs of webhooks may be http

	// NewCredential draws a credential: the text the agent is given and the public
	// key that goes into the log.
	NewCredential func() (authCode string, publicKey []byte, err error)

	// JoinCode makes the codes of invitations; nil: nobody can be invited.
	JoinCode JoinCode
	// LookupTXT asks for the records that prove domains; nil: none can be verified.
	LookupTXT LookupTXT
	// SealSecret seals the client secrets of mappings whose visitors log in at an OpenID
	// provider; nil: there are no such mappings.
	SealSecret domain.SealSecret
	// ParseClaim reads a claim code; nil: clients cannot be claimed here.
	ParseClaim func(code string) (Claim, error)

	Keys []Key // the operator's
	// SigningKeys sign access tokens: the first signs, all verify. Control planes
	// of one cluster have the same keys. An API without keys makes one for the life of
	// the process.
	SigningKeys []SigningKey
	Plans       []NamedPlan
	CORSOrigins []string // origins whose pages may call the API, "*" for all; none by default
	Version     Version
	// TrustedProxies are the networks whose X-Forwarded-For and Forwarded headers are
	// believed; none by default.
	TrustedProxies []netip.Prefix

	// RateLimit is how many requests a second one caller may make, and one address
	// that sends no key, with a burst of RateBurst; 0 is no limit.
	RateLimit float64
	RateBurst int
	// Rates counts requests, and attempts to log in, with the other servers of the
	// cluster; nil = there are none.
	Rates Rates

	// Checks are the checks of /ready, by name. One error makes the answer 503.
	Checks map[string]func(ctx context.Context) error
	// Needs are checks of services that the server can do without. /ready shows a failed
	// one as degraded and stays 200: a balancer that removed this process would end the
	// work that still goes on.
	Needs map[string]func(ctx context.Context) error
	// Alarms are shown by /ready beside the checks and do not make it 503. They are for
	// people, and people need the API.
	Alarms map[string]func(ctx context.Context) error

	Auditor Auditor // nil: there are no checkpoints and no proofs
	Eraser  Eraser  // nil: personal data cannot be erased

	Metrics *Metrics         // nil: counted and thrown away
	Logger  *slog.Logger     // nil: nothing is logged
	Clock   func() time.Time // nil: time.Now

	// WaitTimeout bounds how long a read waits for its Min-Position; 0 is 2 s.
	WaitTimeout time.Duration
	// WriteTimeout bounds how long a command may take; 0 is 10 s.
	WriteTimeout time.Duration
	// TestWait bounds how long the test of a webhook waits for its result; 0 is 5 s.
	TestWait time.Duration
	// Heartbeat is the interval of heartbeats on a live stream; 0 is 15 s.
	Heartbeat time.Duration
}

func (c *Config) complete() error {
	var errs []error
	missing := func(is bool, what string) {
		if is {
			errs = append(errs, fmt.Errorf("httpapi: no %s", what))
		}
	}
	missing(c.Executor == nil, "executor")
	missing(c.History == nil, "history")
	missing(c.Search == nil, "search")
	missing(c.Reader == nil, "reader")
	missing(c.Past == nil, "past")
	missing(c.NewCredential == nil, "source of credentials")
	missing(len(c.Keys) == 0, "API key: it would be open to everybody or to nobody")
	c.Reader = reader{present: c.Reader, past: c.Past}
	if len(c.SigningKeys) == 0 {
		key, _, err := NewSigningKey()
		errs = append(errs, err)
		c.SigningKeys = []SigningKey{key}
	}
	if c.Metrics == nil {
		c.Metrics = NewMetrics()
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if c.WaitTimeout == 0 {
		c.WaitTimeout = 2 * time.Second
	}
	if c.WriteTimeout == 0 {
		c.WriteTimeout = 10 * time.Second
	}
	if c.TestWait == 0 {
		c.TestWait = 5 * time.Second
	}
	if c.Heartbeat == 0 {
		c.Heartbeat = liveHeartbeat
	}
	return errors.Join(errs...)
}

// api holds the parts; its routes are registered once, in newAPI.
type api struct {
	config    Config
	logger    *slog.Logger
	mux       *http.ServeMux
	huma      huma.API
	passwords passwords
	written   written

	principals *principals
	tokens     tokens
	attempts   *attempts
	limits     limits
	probes     *buckets // of addresses that ask /ready
	counted    counted
	streams    *streams
}

// New gives the handler of the whole API: the routes below /api/v1, the
// documents, the docs page and the probes.
func New(config Config) (http.Handler, error) {
	a, err := newAPI(config)
	if err != nil {
		return nil, err
	}
	return a, nil
}

func newAPI(config Config) (*api, error) {
	if err := config.complete(); err != nil {
		return nil, err
	}
	a := &api{config: config, logger: config.Logger, mux: http.NewServeMux(), passwords: newPasswords(), attempts: newAttempts(config.Rates), streams: newStreams(),
		principals: newPrincipals(), tokens: tokens{config.SigningKeys}}
	a.limits = newLimits(config.RateLimit, config.RateBurst, config.Rates)
	a.probes = newBuckets(probesPerSecond, probeBurst)
	a.huma = humago.New(a.mux, a.document())
	a.huma.UseMiddleware(a.requireIdentity, a.limited, a.atMoment)
	a.registerAuth()
	a.registerKeys()
	a.registerAudit()
	a.registerStream()
	a.registerRevert()
	a.registerUsers()
	a.registerQuotas()
	a.registerClients()
	a.registerClaim()
	a.registerMappings()
	a.registerNodes()
	a.registerDisconnect()
	a.registerShares()
	a.registerInvites()
	a.registerDomains()
	if config.Webhooks != nil {
		a.registerWebhooks()
	}
	a.registerPlans()
	a.registerHistory()
	a.registerStats()
	a.registerProofs()
	a.registerErasure()
	a.registerProbes()
	a.registerDocs()
	a.documentDryRuns()
	a.documentErrors()
	return a, nil
}

// document is the configuration of huma and the head of the OpenAPI document.
func (a *api) document() huma.Config {
	schemas := huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer)
	schemas.RegisterTypeAlias(typeOf[domain.PortRange](), typeOf[ports]())
	return huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info: &huma.Info{Title: "Tunnox", Version: "1", Description: description,
				License: &huma.License{Name: "Apache-2.0", Identifier: "Apache-2.0"}},
			// The server that the document came from; a linter wants it said.
			Servers: []*huma.Server{{URL: "/"}},
			Components: &huma.Components{
				Schemas: schemas,
				SecuritySchemes: map[string]*huma.SecurityScheme{keyScheme: {
					Type: "http", Scheme: "bearer", Description: "An API key (POST /keys, or the operator's in the key file of the first start), or the access token of a login.",
				}},
			},
			Tags: []*huma.Tag{
				{Name: "auth", Description: "Logins and API keys, with their scopes."},
				{Name: "users", Description: "The accounts that own clients and mappings."},
				{Name: "quotas", Description: "The limits of an account, and its present use."},
				{Name: "clients", Description: "The identities of agents."},
				{Name: "mappings", Description: "Rules that lead connections from a listener or a public address to a service."},
				{Name: "nodes", Description: "The processes that run now."},
				{Name: "shares", Description: "Codes with which another user may listen for a service of yours."},
				{Name: "webhooks", Description: "Addresses that receive events as they happen."},
				{Name: "stats", Description: "Traffic and connections, also of open connections."},
				{Name: "events", Description: "The log of all events, in order."},
				{Name: "operation", Description: "Probes and version; no key needed."},
			},
		},
		OpenAPIPath:                  "/openapi",
		Formats:                      map[string]huma.Format{"application/json": jsonFormat, "json": jsonFormat},
		DefaultFormat:                "application/json",
		RejectUnknownQueryParameters: true,
		Transformers:                 []huma.Transformer{sign},
	}
}

const description = "Every write answers with the position it was written at (`X-Position`) and the version it made (`ETag`). " +
	"Send the position as `Min-Position` with a read to be sure to see it; send the version as `If-Match` with a write to be sure " +
	"that nobody changed the resource in between; send an `Idempotency-Key` with a write to be able to repeat it. " +
	"Lists are pages: ask again with `after` = `next` until `next` is null."

// sign puts the request's id and path on a problem that huma is about to write.
func sign(ctx huma.Context, _ string, v any) (any, error) {
	if p, ok := v.(*Problem); ok {
		t := tracked(ctx.Context())
		p.RequestID, p.Instance = t.id, t.path
	}
	return v, nil
}

// jsonFormat is encoding/json with messages for people: no names of Go types.
var jsonFormat = huma.Format{
	Marshal: func(w io.Writer, v any) error {
		enc := json.NewEncoder(w)
		enc.SetEscapeHTML(false)
		return enc.Encode(v)
	},
	Unmarshal: func(data []byte, v any) error {
		if !utf8.Valid(data) {
			return errors.New("is not JSON: it is not UTF-8") // encoding/json would replace what is not, silently
		}
		err := json.Unmarshal(data, v)
		if e, ok := errors.AsType[*json.SyntaxError](err); ok {
			return fmt.Errorf("is not JSON: %s at byte %d", e.Error(), e.Offset)
		}
		if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			return fmt.Errorf("%s%s", e.Field, notHeld)
		}
		return err
	},
}

// notHeld ends the message for a number that passed validation and does not fit into the
// field, such as 1e30. The field's name stands before it.
const notHeld = " is not a value this field can hold"

// operation describes a route. Who may use it stands in the rules, under its id.
func operation(method, path, id, tag, summary string, errs ...int) huma.Operation {
	return huma.Operation{
		OperationID: id, Method: method, Path: prefix + path, Tags: []string{tag}, Summary: summary,
		Security:     bearer(id),
		MaxBodyBytes: maxBodyBytes,
		Errors:       errorsOfAll(errs),
	}
}

// conditional documents that a GET may answer 304.
func conditional(op huma.Operation) huma.Operation {
	op.Responses = map[string]*huma.Response{"304": {Description: "Not Modified: If-None-Match names the present version"}}
	return op
}

// now is the time a command comes in at.
func (a *api) now() time.Time { return a.config.Clock().UTC() }

// tick is the clock for durations: it keeps the monotonic reading, which does not jump.
func (a *api) tick() time.Time { return a.config.Clock() }

// metadata gives the caller, the time and the address of a request.
func (a *api) metadata(ctx context.Context, c domain.Command) domain.Metadata {
	t := tracked(ctx)
	return domain.Metadata{At: a.now(), Actor: t.identity.Actor, Command: c.CommandName(),
		Source: t.source, Request: t.id, Allowed: t.identity.Allowed}
}

// errorsOfAll adds to a route's errors those that every route has, each once.
func errorsOfAll(errs []int) []int {
	all := []int{http.StatusUnauthorized, http.StatusTooManyRequests, http.StatusServiceUnavailable}
	for _, status := range append([]int{http.StatusForbidden}, errs...) {
		if !slices.Contains(all, status) {
			all = append(all, status)
		}
	}
	return all
}
