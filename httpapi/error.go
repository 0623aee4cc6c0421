package httpapi

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/validation"

	"github.com/tunnox-net/tunnox/domain"
)

// Codes of this package, beside those of domain.
const (
	codeMalformed        domain.Code = "malformed"              // the body is not JSON
	codeUnauthorized     domain.Code = "unauthorized"           // no key, or an unknown one
	codeRouteNotFound    domain.Code = "route_not_found"        // no such path
	codeMethodNotAllowed domain.Code = "method_not_allowed"     // the path has other methods
	codeNotAcceptable    domain.Code = "not_acceptable"         // no such representation
	codeTimeout          domain.Code = "request_timeout"        // the body came too slowly
	codeTooLarge         domain.Code = "body_too_large"         // beyond maxBodyBytes
	codeMediaType        domain.Code = "unsupported_media_type" // the body is not application/json
	codeInternal         domain.Code = "internal"               // our fault; the log has the details
	codeReadModelBehind  domain.Code = "read_model_behind"      // Min-Position was not reached in time
	codeReadUnavailable  domain.Code = "read_model_unavailable" // lists cannot be read now
	codeTooMany          domain.Code = "too_many_requests"      // beyond the rate, or too many attempts
)

// retryAfter is the Retry-After of a 503: long enough for a projector to catch up or a
// database to fail over, short enough for a person to wait.
const retryAfter = 2 * time.Second

// Fault is one thing wrong with a request, at its place.
type Fault struct {
	Location string `json:"location" doc:"The place: body.<field>, path.<name>, query.<name> or header.<name>" example:"body.target_port"`
	Message  string `json:"message" doc:"The fault, for people" example:"must be 1 to 65535, is 0"`
}

// Error implements error, which is how huma collects faults.
func (f *Fault) Error() string { return f.Location + ": " + f.Message }

// Problem is the body of every answer that is not a success (RFC 9457). It never repeats
// a value of the request, because that could be a password.
type Problem struct {
	Type      string   `json:"type" doc:"Always about:blank; the code tells problems apart" example:"about:blank"`
	Title     string   `json:"title" doc:"The status in words" example:"Unprocessable Entity"`
	Status    int      `json:"status" doc:"The HTTP status" example:"422"`
	Detail    string   `json:"detail,omitempty" doc:"The reason, for people" example:"The mapping cannot be created as asked."`
	Code      string   `json:"code" doc:"The reason as a code. Codes do not change" example:"invalid"`
	RequestID string   `json:"request_id,omitempty" doc:"The id of the request, as in X-Request-Id and in the server's log" example:"01b7c1f0c7a94d4b9f1d3f7f9a5f6a10"`
	Instance  string   `json:"instance,omitempty" doc:"The path of the request" example:"/api/v1/mappings"`
	Errors    []*Fault `json:"errors,omitempty" nullable:"false" doc:"All faults of the request"`

	wait time.Duration // for Retry-After; 0 = no such header
}

// Error implements error.
func (p *Problem) Error() string { return p.Detail }

// GetStatus implements [huma.StatusError].
func (p *Problem) GetStatus() int { return p.Status }

// GetHeaders implements [huma.HeadersError].
func (p *Problem) GetHeaders() http.Header {
	if p.wait <= 0 {
		return nil
	}
	return http.Header{"Retry-After": {strconv.FormatInt(seconds(p.wait), 10)}}
}

// ContentType implements [huma.ContentTypeFilter].
func (p *Problem) ContentType(string) string { return "application/problem+json" }

func problem(status int, code domain.Code, detail string, faults ...*Fault) *Problem {
	p := &Problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: detail,
		Code: string(code), Errors: faults}
	if status == http.StatusServiceUnavailable {
		p.wait = retryAfter
	}
	return p
}

// seconds rounds up, so that a caller who waits as long as the header says is not too
// early.
func seconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }

// invalid is the refusal of a request that is wrong at one place.
func invalid(location, message string) *Problem {
	return problem(http.StatusUnprocessableEntity, domain.CodeInvalid, "The request has faults.",
		&Fault{Location: location, Message: message})
}

// statusOf is the only place where codes become statuses.
//
// A quota that is used up is 403 and not 409: the account may not have more,
// and the same request will be refused until somebody allows it.
func statusOf(code domain.Code) int {
	switch code {
	case domain.CodeInvalid, domain.CodeIdempotencyMismatch, domain.CodeProtocolUnavailable, domain.CodeHostNotVerified:
		return http.StatusUnprocessableEntity
	case domain.CodeUserNotFound, domain.CodeClientNotFound, domain.CodeMappingNotFound, domain.CodeKeyNotFound, domain.CodeShareNotFound, domain.CodeInviteNotFound, domain.CodeDomainNotFound, domain.CodeWebhookNotFound:
		return http.StatusNotFound
	case domain.CodeUsernameTaken, domain.CodeEmailTaken, domain.CodeListenerTaken, domain.CodeIDTaken, domain.CodePortTaken, domain.CodePortsTaken, domain.CodePublicUnavailable,
		domain.CodeHostTaken, domain.CodeHostsTaken, domain.CodeDomainTaken, domain.CodeDomainInUse,
		domain.CodeNotRevertible, domain.CodeMovedOn, domain.CodeUserDisabled, domain.CodeClientDisabled, domain.CodeShareEnded, domain.CodeInviteEnded, domain.CodeClientClaimed:
		return http.StatusConflict
	case domain.CodeClientNotOwned, domain.CodeCommandsRefused, domain.CodeQuotaClients, domain.CodeQuotaMappings, domain.CodeQuotaActive, domain.CodeQuotaClientMappings, domain.CodeQuotaPublicPorts, domain.CodeQuotaPublicHosts,
		domain.CodeQuotaKeys, domain.CodeQuotaShares, domain.CodeQuotaInvites, domain.CodeQuotaDomains, domain.CodeQuotaWebhooks, domain.CodeScopeDenied, domain.CodeClaimRefused, domain.CodeRegistrationOff:
		return http.StatusForbidden
	case domain.CodeLoginRefused, domain.CodeLoginEnded:
		return http.StatusUnauthorized
	case domain.CodeVersionConflict:
		return http.StatusPreconditionFailed
	case domain.CodeStoreUnavailable:
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// places gives the place of a refusal that names no field. A not-found is at path.id,
// except in commands that name the resource in their body.
var places = map[domain.Code]string{
	domain.CodeUserNotFound:        "path.id",
	domain.CodeClientNotFound:      "path.id",
	domain.CodeMappingNotFound:     "path.id",
	codeEventNotFound:              "path.position",
	domain.CodeKeyNotFound:         "path.id",
	domain.CodeShareNotFound:       "path.id",
	domain.CodeInviteNotFound:      "path.id",
	domain.CodeDomainNotFound:      "path.id",
	domain.CodeWebhookNotFound:     "path.id",
	domain.CodeUsernameTaken:       "body.username",
	domain.CodeEmailTaken:          "body.email",
	domain.CodeListenerTaken:       "body.local_port",
	domain.CodeProtocolUnavailable: "body.protocol",
	domain.CodeVersionConflict:     "header.If-Match",
	domain.CodeIdempotencyMismatch: "header.Idempotency-Key",
}

// refusal turns the error of a seam into the answer. An error that is not a refusal goes
// to the log; the caller learns only that it happened.
func (a *api) refusal(ctx context.Context, err error) error {
	if p, ok := errors.AsType[*Problem](err); ok {
		return p
	}
	if d, ok := errors.AsType[*DryRun](err); ok {
		return d
	}
	if e, ok := errors.AsType[*domain.Error](err); ok {
		if status := statusOf(e.Code); status != http.StatusInternalServerError {
			if status == http.StatusServiceUnavailable {
				a.logger.WarnContext(ctx, "log cannot be written", "request", tracked(ctx).id, "error", err)
			}
			return refused(status, e)
		}
	}
	if errors.Is(err, errBusy) {
		return busy()
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return problem(http.StatusServiceUnavailable, domain.CodeStoreUnavailable,
			"The command was not confirmed in time. It may have been carried out: ask again with the same Idempotency-Key, or look.")
	}
	a.logger.ErrorContext(ctx, "request failed", "request", tracked(ctx).id, "error", err)
	return problem(http.StatusInternalServerError, codeInternal, "The server failed. Its log has the details under the request id.")
}

func refused(status int, e *domain.Error) *Problem {
	p := problem(status, e.Code, e.Message)
	for _, f := range e.Faults {
		p.Errors = append(p.Errors, &Fault{Location: "body." + f.Field, Message: f.Message})
	}
	if place, ok := places[e.Code]; ok && len(e.Faults) == 0 {
		p.Errors = []*Fault{{Location: place, Message: e.Message}}
	}
	return p
}

// hidden replaces a refusal about another user's client by the refusal for a client that
// does not exist, unless the caller is an admin.
func (a *api) hidden(ctx context.Context, err error) error {
	e, ok := errors.AsType[*domain.Error](err)
	if !ok || e.Code != domain.CodeClientNotOwned || identity(ctx).admin() || len(e.Faults) == 0 {
		return err
	}
	end, _, _ := strings.Cut(e.Faults[0].Field, "_")
	message := "There is no such " + end + " client."
	return &domain.Error{Code: domain.CodeClientNotFound, Message: message, Faults: []domain.Fault{{Field: e.Faults[0].Field, Message: message}}}
}

// inBody moves a not-found of the user from the path to the body, for commands
// that name the user there.
func inBody(err error) error {
	e, ok := errors.AsType[*domain.Error](err)
	if !ok || e.Code != domain.CodeUserNotFound {
		return err
	}
	moved := *e
	moved.Faults = []domain.Fault{{Field: "user_id", Message: e.Message}}
	return &moved
}

func init() {
	// huma has these as globals only. Ours is the one package that uses huma.
	huma.NewError = func(status int, message string, errs ...error) huma.StatusError {
		return fromHuma(status, message, errs)
	}
	// {"Username": ...} would pass validation and then be used as "username". The
	// validated value and the used value must be the same.
	huma.ValidateStrictCasing = true
}

// fromHuma gives the answer to a fault that huma found in parameters, bodies or media
// types. It drops the values that huma would repeat.
func fromHuma(status int, message string, errs []error) *Problem {
	switch {
	case status == http.StatusInternalServerError && message == "cannot read request body":
		// The caller broke off. That is not a failure of the server.
		return problem(http.StatusBadRequest, codeMalformed, "The body ended before its length.")
	case status >= http.StatusInternalServerError:
		return problem(status, codeInternal, "The server failed. Its log has the details under the request id.")
	}
	code, detail := humaCode(status)
	p := problem(status, code, detail)
	for _, err := range errs {
		if f := faultFromHuma(err); f != nil {
			p.Errors = append(p.Errors, f)
		}
	}
	if len(errs) == 1 {
		if e := protocolToCome(errs[0]); e != nil {
			return refused(status, e)
		}
	}
	switch {
	case status == http.StatusUnsupportedMediaType:
		p.Errors = []*Fault{{Location: "header.Content-Type", Message: "must be application/json"}}
	case len(p.Errors) > 0:
	case status == http.StatusUnauthorized:
		p.Errors = []*Fault{{Location: "header.Authorization", Message: "must be Bearer and an API key or access token that is good"}}
	case status == http.StatusBadRequest:
		p.Errors = []*Fault{{Location: "body", Message: "is required"}}
	case status == http.StatusRequestEntityTooLarge:
		p.Errors = []*Fault{{Location: "body", Message: "may have 1 MiB"}}
	case status == http.StatusRequestTimeout:
		p.Errors = []*Fault{{Location: "body", Message: "must arrive within 5 seconds"}}
	}
	return p
}

func humaCode(status int) (domain.Code, string) {
	switch status {
	case http.StatusUnauthorized:
		return codeUnauthorized, "An API key or access token is required: Authorization: Bearer <key>."
	case http.StatusBadRequest:
		return codeMalformed, "The body is missing or is not JSON."
	case http.StatusNotAcceptable:
		return codeNotAcceptable, "Answers are application/json."
	case http.StatusRequestTimeout:
		return codeTimeout, "The body came too slowly."
	case http.StatusRequestEntityTooLarge:
		return codeTooLarge, "The body is larger than 1 MiB."
	case http.StatusUnsupportedMediaType:
		return codeMediaType, "The body must be application/json."
	}
	return domain.CodeInvalid, "The request has faults."
}

// protocolToCome gives the domain's refusal for a protocol that is known but not
// available, so that the document does not offer it.
func protocolToCome(err error) *domain.Error {
	detailer, ok := err.(huma.ErrorDetailer)
	if !ok || detailer.ErrorDetail().Location != places[domain.CodeProtocolUnavailable] {
		return nil
	}
	name, _ := detailer.ErrorDetail().Value.(string)
	refusal, _ := errors.AsType[*domain.Error](domain.Protocol(name).Unavailable())
	return refusal
}

// required is the beginning of huma's message for a missing field. huma gives such a
// fault the place of the object; here it gets the place of the field.
var required, _, _ = strings.Cut(validation.MsgExpectedRequiredProperty, "%s")

func faultFromHuma(err error) *Fault {
	switch e := err.(type) {
	case nil:
		return nil
	case *Fault:
		return e
	case huma.ErrorDetailer:
		d := e.ErrorDetail()
		f := &Fault{Location: d.Location, Message: d.Message}
		if rest, ok := strings.CutPrefix(d.Message, required); ok {
			field, _, _ := strings.Cut(rest, " ")
			f = &Fault{Location: strings.TrimPrefix(d.Location+"."+field, "."), Message: "is required"}
		}
		if field, ok := strings.CutSuffix(d.Message, notHeld); ok && field != "" {
			f = &Fault{Location: d.Location + "." + field, Message: strings.TrimSpace(notHeld)}
		}
		return f
	}
	return &Fault{Location: "body", Message: "cannot be read"}
}
