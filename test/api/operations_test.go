package api

import (
	"context"
	"testing"

	"github.com/tunnox-net/tunnox/test/apiclient"
)

// story calls operations through the generated client and checks their answers.
type story struct {
	*testing.T
	*form
	ctx   context.Context
	done  *calls
	admin *apiclient.ClientWithResponses // the operator's
}

// as gives the generated client with another token.
func (s *story) as(token string) *apiclient.ClientWithResponses {
	return client(s.T, s.first, token, s.done)
}

// everyOperation tells stories in which every operation of the document succeeds at
// least once, and fails for those that do not.
func everyOperation(t *testing.T, f *form) {
	s := &story{T: t, form: f, ctx: t.Context(), done: &calls{doc: f.doc, ids: map[string]bool{}}}
	s.admin = s.as(f.first.Key)
	s.probes()
	s.accounts()
	s.logins()
	s.tunnels()
	s.shares()
	s.invites()
	s.domains()
	s.webhooks()
	s.log()
	s.refusals()
	for _, id := range s.done.missing() {
		t.Errorf("%s has not been called with success; add it to a story here", id)
	}
	t.Logf("%d operations called with success", len(s.done.ids))
}

func (s *story) probes() {
	c := s.as("")
	is(s.T, "health", call(c.HealthWithResponse(s.ctx)).want(s.T, 200).JSON200.Status, apiclient.Ok)
	ready := call(c.ReadyWithResponse(s.ctx)).want(s.T, 200).JSON200
	is(s.T, "ready", ready.Status, apiclient.ReadyStatusReady)
	if len(ready.Checks) == 0 {
		s.Error("nothing is checked by /ready")
	}
	if v := call(c.VersionWithResponse(s.ctx)).want(s.T, 200).JSON200; v.Version == "" {
		s.Error("no version")
	}
	keys := call(c.JwksWithResponse(s.ctx)).want(s.T, 200).JSON200.Keys
	if len(keys) != 1 || keys[0]["kty"] != "OKP" || keys[0]["crv"] != "Ed25519" {
		s.Errorf("keys of access tokens are %v", keys)
	}
	if nodes := call(s.admin.ListNodesWithResponse(s.ctx)).want(s.T, 200).JSON200.Items; len(nodes) == 0 {
		s.Error("there are no nodes")
	} else {
		node := call(s.admin.GetNodeWithResponse(s.ctx, nodes[0].NodeId)).want(s.T, 200).JSON200
		is(s.T, "the node's id", node.NodeId, nodes[0].NodeId)
		is(s.T, "the node's state", node.State, apiclient.NodeStateActive)
	}
}

// refusals are problems as RFC 9457 defines them, at any status.
func (s *story) refusals() {
	nobody := call(s.as("").ListUsersWithResponse(s.ctx, nil)).want(s.T, 401).ApplicationproblemJSON401
	s.problem(nobody, 401, "unauthorized", "")
	missing := call(s.admin.GetUserWithResponse(s.ctx, 4711, nil)).want(s.T, 404).ApplicationproblemJSON404
	s.problem(missing, 404, "user_not_found", "path.id")
	is(s.T, "instance", *missing.Instance, "/api/v1/users/4711")
	body := apiclient.CreateUserBody{Username: "taken", Email: "taken@example.org"}
	u := call(s.admin.CreateUserWithResponse(s.ctx, nil, body)).want(s.T, 201)
	s.problem(call(s.admin.CreateUserWithResponse(s.ctx, nil, body)).want(s.T, 409).ApplicationproblemJSON409, 409, "username_taken", "body.username")
	body.Username, body.Email = "", "no address"
	s.problem(call(s.admin.CreateUserWithResponse(s.ctx, nil, body)).want(s.T, 422).ApplicationproblemJSON422, 422, "invalid", "body.username")
	stale := `"4711"`
	s.problem(call(s.admin.DisableUserWithResponse(s.ctx, u.JSON201.UserId, &apiclient.DisableUserParams{IfMatch: &stale})).want(s.T, 412).ApplicationproblemJSON412,
		412, "version_conflict", "header.If-Match")
}

func (s *story) problem(p *apiclient.Problem, status int64, code, place string) {
	s.Helper()
	if p == nil {
		s.Errorf("%s did not decode as a problem", code)
		return
	}
	if p.Type != "about:blank" || p.Title == "" || p.Status != status || p.Code != code || p.Detail == nil || p.RequestId == nil {
		s.Errorf("problem %+v, want %d %s with all its fields", p, status, code)
	}
	if place == "" {
		return
	}
	if p.Errors == nil {
		s.Errorf("%s names no place", code)
		return
	}
	for _, fault := range *p.Errors {
		if fault.Location == place {
			return
		}
	}
	s.Errorf("%s is at %+v, want %s", code, *p.Errors, place)
}
