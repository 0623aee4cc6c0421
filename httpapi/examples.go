package httpapi

import (
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tunnox-net/tunnox/domain"
)

// documentErrors gives every refusal in the document an example of its own: one
// that its operation gives with that status.
func (a *api) documentErrors() {
	for path, item := range a.huma.OpenAPI().Paths {
		for _, op := range []*huma.Operation{item.Get, item.Post, item.Put, item.Delete} {
			if op == nil {
				continue
			}
			for status, response := range op.Responses {
				code, err := strconv.Atoi(status)
				media := response.Content["application/problem+json"]
				if err == nil && media != nil {
					media.Example = a.exampleOf(op, path, code)
				}
			}
		}
	}
	a.documentEvents()
}

// documentEvents names the events where events can be named.
func (a *api) documentEvents() {
	names := " The events are " + strings.Join(domain.EventNames(), ", ") + "."
	for _, schema := range a.huma.OpenAPI().Components.Schemas.Map() {
		if events := schema.Properties["events"]; events != nil && events.Items != nil && events.Items.Type == huma.TypeString {
			events.Description += "." + names
		}
	}
	for _, item := range a.huma.OpenAPI().Paths {
		if item.Get == nil {
			continue
		}
		for _, p := range item.Get.Parameters {
			if p.Name == "type" && p.Schema != nil && p.Schema.Items != nil {
				p.Description += "." + names
			}
		}
	}
}

// pathExample finds what stands for a number in a path.
var pathExample = regexp.MustCompile(`\{[a-z_]+\}`)

// gone are the codes of what is not there, by the first part of a path.
var gone = map[string]domain.Code{
	"users": domain.CodeUserNotFound, "clients": domain.CodeClientNotFound, "mappings": domain.CodeMappingNotFound, "keys": domain.CodeKeyNotFound,
	"shares": domain.CodeShareNotFound, "domains": domain.CodeDomainNotFound, "webhooks": domain.CodeWebhookNotFound, "nodes": codeNodeNotFound, "events": codeEventNotFound, "audit": codeNoProof,
}

// refusedNow are the codes of what the present state does not allow.
var refusedNow = map[string]domain.Code{
	"users": domain.CodeUsernameTaken, "clients": domain.CodeUserDisabled, "mappings": domain.CodeListenerTaken, "keys": domain.CodeUserDisabled,
	"shares": domain.CodeShareEnded, "domains": domain.CodeDomainInUse, "webhooks": codeWebhookDisabled, "events": domain.CodeMovedOn,
}

// exampleOf makes the example of one refusal.
func (a *api) exampleOf(op *huma.Operation, path string, status int) *Problem {
	kind, _, _ := strings.Cut(strings.TrimPrefix(path, prefix+"/"), "/")
	place := "query.limit"
	switch {
	case op.RequestBody != nil:
		place = "body." + a.firstField(op)
	case strings.Contains(path, "{id}"):
		place = "path.id"
	}
	var p *Problem
	switch status {
	case http.StatusNotFound:
		code, ok := gone[kind]
		if !ok {
			code = domain.CodeUserNotFound
		}
		p = refused(status, &domain.Error{Code: code, Message: "There is no such " + strings.TrimSuffix(kind, "s") + "."})
		if len(p.Errors) > 0 && p.Errors[0].Location == "path.id" {
			p.Errors[0].Location = place
		}
	case http.StatusConflict:
		code, ok := refusedNow[kind]
		if !ok {
			code = domain.CodeUserDisabled
		}
		p = refused(status, &domain.Error{Code: code, Message: "This is not possible as things are."})
	case http.StatusForbidden:
		p = problem(status, codeScopeMissing, "This key lacks the scope "+string(ruleOf(op.OperationID).scope)+".")
	case http.StatusPreconditionFailed:
		p = refused(status, &domain.Error{Code: domain.CodeVersionConflict, Message: "It is at version 4, not 3: somebody changed it."})
	case http.StatusUnprocessableEntity:
		p = invalid(place, "is not as it must be")
	case http.StatusTooManyRequests:
		p = problem(status, codeTooMany, "Requests come faster than this server allows one caller.")
	case http.StatusServiceUnavailable:
		p = problem(status, domain.CodeStoreUnavailable, "The log cannot be reached now. Try again.")
	default:
		p = fromHuma(status, "", nil)
	}
	p.RequestID, p.Instance = "01b7c1f0c7a94d4b9f1d3f7f9a5f6a10", pathExample.ReplaceAllString(path, "1001")
	return p
}

// firstField gives a field of an operation's body: the first that is required, or
// the first of all.
func (a *api) firstField(op *huma.Operation) string {
	for _, media := range op.RequestBody.Content {
		schema := media.Schema
		if schema != nil && schema.Ref != "" {
			schema = a.huma.OpenAPI().Components.Schemas.SchemaFromRef(schema.Ref)
		}
		if schema == nil {
			continue
		}
		if len(schema.Required) > 0 {
			return schema.Required[0]
		}
		for _, name := range slices.Sorted(maps.Keys(schema.Properties)) {
			return name
		}
	}
	return "name"
}
