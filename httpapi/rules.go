package httpapi

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tunnox-net/tunnox/domain"
)

// rule says who may use an operation.
type rule struct {
	open  bool         // no token is asked for
	scope domain.Scope // what the token must have
	// own decides for who is no admin, on the id in the path; nil is admins only.
	own func(a *api, ctx context.Context, who Identity, id int64) error
	// kind is what the id in the path is of, for the test that goes over all rules.
	kind string
}

// rules is the only place where it is decided who may do what, by operation. An
// operation that is not here is for admins, and fails a test.
//
// What belongs to somebody else is answered as if it were not there: 403 would
// say that it is. What is in a body or is a list is narrowed down by the handler,
// with [api.forUser] and ownLists.
var rules = map[string]rule{
	"health": {open: true}, "ready": {open: true}, "version": {open: true},
	"login": {open: true}, "refresh": {open: true}, "jwks": {open: true},
	"logout": anybody(domain.ScopeRead), "whoami": anybody(domain.ScopeRead), "list-plans": anybody(domain.ScopeRead),

	"create-user": adminOnly(domain.ScopeAdmin), "delete-user": adminOnly(domain.ScopeAdmin), "erase-user": adminOnly(domain.ScopeAdmin),
	"enable-user": adminOnly(domain.ScopeAdmin), "disable-user": adminOnly(domain.ScopeAdmin),
	"set-user-role": adminOnly(domain.ScopeAdmin), "set-user-plan": adminOnly(domain.ScopeAdmin),
	"set-quota": adminOnly(domain.ScopeAdmin), "post-quota": adminOnly(domain.ScopeAdmin),
	"list-users": anybody(domain.ScopeRead), "get-user": ofUser(domain.ScopeRead), "change-user": ofUser(domain.ScopeUsersWrite),
	"get-quota": ofUser(domain.ScopeRead), "list-clients-of-user": ofUser(domain.ScopeRead), "list-mappings-of-user": ofUser(domain.ScopeRead),

	"system-stats": adminOnly(domain.ScopeAdmin), "realtime-stats": adminOnly(domain.ScopeAdmin),
	"list-user-stats": anybody(domain.ScopeRead), "user-stats": ofUser(domain.ScopeRead),
	"client-stats": ofClient(domain.ScopeRead), "traffic-stats": anybody(domain.ScopeRead),

	"create-client": anybody(domain.ScopeClientsWrite), "claim-client": anybody(domain.ScopeClientsWrite),
	"list-clients": anybody(domain.ScopeRead), "get-client": ofClient(domain.ScopeRead), "list-mappings-of-client": ofClient(domain.ScopeRead),
	"change-client": ofClient(domain.ScopeClientsWrite), "delete-client": ofClient(domain.ScopeClientsWrite),
	"enable-client": ofClient(domain.ScopeClientsWrite), "disable-client": ofClient(domain.ScopeClientsWrite),
	"rotate-credential": ofClient(domain.ScopeClientsWrite), "disconnect-client": ofClient(domain.ScopeClientsWrite),

	"list-nodes": adminOnly(domain.ScopeAdmin), "get-node": aNode, "drain-node": aNode, "revoke-node": aNode,

	"create-mapping": anybody(domain.ScopeMappingsWrite),
	"list-mappings":  anybody(domain.ScopeRead), "get-mapping": ofMapping(domain.ScopeRead, true),
	"change-mapping": ofMapping(domain.ScopeMappingsWrite, true), "delete-mapping": ofMapping(domain.ScopeMappingsWrite, true),
	"enable-mapping": ofMapping(domain.ScopeMappingsWrite, false), "disable-mapping": ofMapping(domain.ScopeMappingsWrite, false),

	"create-key": anybody(domain.ScopeKeysWrite), "list-keys": anybody(domain.ScopeRead),
	"get-key": ofKey(domain.ScopeRead), "revoke-key": ofKey(domain.ScopeKeysWrite),
	"create-share": anybody(domain.ScopeSharesWrite), "redeem-share": anybody(domain.ScopeSharesWrite), "list-shares": anybody(domain.ScopeRead),
	"get-share": ofShare(domain.ScopeRead), "revoke-share": ofShare(domain.ScopeSharesWrite),

	"create-invite": anybody(domain.ScopeClientsWrite), "list-invites": anybody(domain.ScopeRead),
	"get-invite": ofInvite(domain.ScopeRead), "revoke-invite": ofInvite(domain.ScopeClientsWrite),

	"create-domain": anybody(domain.ScopeMappingsWrite), "list-domains": anybody(domain.ScopeRead), "get-domain": ofDomain(domain.ScopeRead),
	"verify-domain": ofDomain(domain.ScopeMappingsWrite), "delete-domain": ofDomain(domain.ScopeMappingsWrite),

	"create-webhook": anybody(domain.ScopeWebhooksWrite), "list-webhooks": anybody(domain.ScopeRead), "get-webhook": ofWebhook(domain.ScopeRead),
	"change-webhook": ofWebhook(domain.ScopeWebhooksWrite), "delete-webhook": ofWebhook(domain.ScopeWebhooksWrite),
	"enable-webhook": ofWebhook(domain.ScopeWebhooksWrite), "disable-webhook": ofWebhook(domain.ScopeWebhooksWrite),
	"rotate-webhook-secret": ofWebhook(domain.ScopeWebhooksWrite), "test-webhook": ofWebhook(domain.ScopeWebhooksWrite),
	"list-deliveries": ofWebhook(domain.ScopeRead), "redeliver": ofWebhook(domain.ScopeWebhooksWrite),

	"audit": anybody(domain.ScopeRead), "stream-events": anybody(domain.ScopeRead), // narrowed to the account by api.query
	// Hashes over the log tell nothing of what is in it, and a proof is for everybody.
	"get-checkpoint": anybody(domain.ScopeRead), "prove-inclusion": anybody(domain.ScopeRead), "prove-consistency": anybody(domain.ScopeRead),
	"revert-event": adminOnly(domain.ScopeAdmin),
	"list-events":  adminOnly(domain.ScopeAdmin), "user-history": ofUser(domain.ScopeRead),
	"client-history": historyOf(domain.ClientStream, "client"), "mapping-history": historyOf(domain.MappingStream, "mapping"),
}

// ruleOf gives an operation's rule; one without is for admins.
func ruleOf(operation string) rule {
	if r, ok := rules[operation]; ok {
		return r
	}
	return adminOnly(domain.ScopeAdmin)
}

func adminOnly(scope domain.Scope) rule { return rule{scope: scope} }

// aNode is for admins: a node is nobody's, and its id is no number.
var aNode = rule{scope: domain.ScopeAdmin, kind: "node"}

// anybody is for everybody with a token; the handler keeps to what is theirs.
func anybody(scope domain.Scope) rule {
	return rule{scope: scope, own: func(*api, context.Context, Identity, int64) error { return nil }}
}

func ofUser(scope domain.Scope) rule {
	return rule{scope: scope, kind: "user", own: func(_ *api, _ context.Context, who Identity, id int64) error {
		return theirs(who.UserID == id, noUser())
	}}
}

func ofClient(scope domain.Scope) rule {
	return rule{scope: scope, kind: "client", own: func(a *api, ctx context.Context, who Identity, id int64) error {
		row, err := a.client(ctx, id, 0)
		if err != nil {
			return err
		}
		return theirs(row.UserID == who.UserID, notFound(domain.CodeClientNotFound, "There is no such client."))
	}}
}

// ofMapping is for the mapping's user, and with guests also for those whose
// clients are its ends: they may look at it, leave it, and change what is theirs.
func ofMapping(scope domain.Scope, guests bool) rule {
	return rule{scope: scope, kind: "mapping", own: func(a *api, ctx context.Context, who Identity, id int64) error {
		row, err := a.mapping(ctx, id, 0)
		if err != nil {
			return err
		}
		return theirs(row.UserID == who.UserID || guests && slices.Contains(row.Users(), who.UserID),
			notFound(domain.CodeMappingNotFound, "There is no such mapping."))
	}}
}

func ofKey(scope domain.Scope) rule {
	return rule{scope: scope, kind: "key", own: func(a *api, ctx context.Context, who Identity, id int64) error {
		row, err := a.key(ctx, id, 0)
		if err != nil {
			return err
		}
		return theirs(row.UserID == who.UserID, noKey())
	}}
}

func ofShare(scope domain.Scope) rule {
	return rule{scope: scope, kind: "share", own: func(a *api, ctx context.Context, who Identity, id int64) error {
		row, err := a.share(ctx, id, 0)
		if err != nil {
			return err
		}
		return theirs(row.UserID == who.UserID, noShare())
	}}
}

func ofInvite(scope domain.Scope) rule {
	return rule{scope: scope, kind: "invite", own: func(a *api, ctx context.Context, who Identity, id int64) error {
		row, err := a.invite(ctx, id, 0)
		if err != nil {
			return err
		}
		return theirs(row.UserID == who.UserID, noInvite())
	}}
}

func ofDomain(scope domain.Scope) rule {
	return rule{scope: scope, kind: "domain", own: func(a *api, ctx context.Context, who Identity, id int64) error {
		row, err := a.domain(ctx, id, 0)
		if err != nil {
			return err
		}
		return theirs(row.UserID == who.UserID, noDomain())
	}}
}

func ofWebhook(scope domain.Scope) rule {
	return rule{scope: scope, kind: "webhook", own: func(a *api, ctx context.Context, who Identity, id int64) error {
		row, err := a.webhook(ctx, id, 0)
		if err != nil {
			return err
		}
		return theirs(row.UserID == who.UserID, noWebhook())
	}}
}

// historyOf is for whose it is or was: what was deleted is in no read model.
func historyOf(stream func(int64) domain.StreamID, kind string) rule {
	return rule{scope: domain.ScopeRead, kind: kind, own: func(a *api, ctx context.Context, who Identity, id int64) error {
		state, _, err := a.fold(ctx, stream(id))
		if err != nil {
			return a.unreadable(ctx, err)
		}
		switch s := state.(type) {
		case *domain.Client:
			return theirs(s.UserID == who.UserID, notFound(domain.CodeClientNotFound, "There never was such a client."))
		case *domain.Mapping:
			return theirs(slices.Contains(s.Users(), who.UserID), notFound(domain.CodeMappingNotFound, "There never was such a mapping."))
		}
		return noUser()
	}}
}

func theirs(is bool, none error) error {
	if is {
		return nil
	}
	return none
}

func noUser() error { return notFound(domain.CodeUserNotFound, "There is no such user.") }

const (
	codeForbidden    domain.Code = "forbidden"     // only admins may
	codeScopeMissing domain.Code = "scope_missing" // the key was not given this
)

// authorise decides, for somebody who is known.
func (a *api) authorise(ctx huma.Context, r rule, who Identity) error {
	if !slices.Contains(who.Scopes, r.scope) && !(who.Role == domain.RoleUser && r.own == nil) {
		return problem(http.StatusForbidden, codeScopeMissing, "This key lacks the scope "+string(r.scope)+".")
	}
	switch {
	case who.admin():
		return nil
	case r.own == nil:
		return problem(http.StatusForbidden, codeForbidden, "Only an admin may do this.")
	}
	id, err := strconv.ParseInt(ctx.Param("id"), 10, 64)
	if r.kind != "" && (err != nil || id < 1) {
		return nil // no id of anything; validation says so
	}
	err = r.own(a, ctx.Context(), who, id)
	if err != nil && repeatable[ctx.Operation().OperationID] && a.repeats(ctx, who, err) {
		return nil
	}
	return err
}

// repeatable are operations on one thing that are a command and nothing else. A
// repeat of one under its Idempotency-Key is answered with the first answer, also
// when the thing has gone meanwhile, with which its owner has gone.
var repeatable = map[string]bool{
	"change-client": true, "delete-client": true, "enable-client": true, "disable-client": true, "rotate-credential": true,
	"change-mapping": true, "delete-mapping": true, "enable-mapping": true, "disable-mapping": true,
	"change-webhook": true, "delete-webhook": true, "enable-webhook": true, "disable-webhook": true,
	"revoke-key": true, "revoke-share": true,
}

// repeats tells whether the caller has used the request's Idempotency-Key. What
// comes under such a key is never decided: it is the same request, which was
// theirs to make then, or it is refused as another, whatever it is about.
func (a *api) repeats(ctx huma.Context, who Identity, err error) bool {
	key := ctx.Header("Idempotency-Key")
	p, ok := errors.AsType[*Problem](err)
	if key == "" || len(key) > maxKey || !ok || p.Status != http.StatusNotFound {
		return false
	}
	used, err := a.config.Executor.KeyUsed(ctx.Context(), who.Actor, key)
	return err == nil && used
}

// forUser gives the user that something new is to belong to: the one that is
// named, or, when none is, who asks. Somebody else is not there for who is no
// admin.
func forUser(ctx context.Context, named int64) (int64, error) {
	who := identity(ctx)
	switch {
	case named == 0 && who.UserID == 0:
		return 0, invalid("body.user_id", "is required")
	case named == 0:
		return who.UserID, nil
	case !who.admin() && named != who.UserID:
		p := refused(http.StatusNotFound, &domain.Error{Code: domain.CodeUserNotFound, Message: "There is no such user."})
		p.Errors = []*Fault{{Location: "body.user_id", Message: "There is no such user."}}
		return 0, p
	}
	return named, nil
}

// bearer documents what an operation's rule asks for.
func bearer(operation string) []map[string][]string {
	if ruleOf(operation).open {
		return forAnybody
	}
	return needsKey
}

// forAnybody says in the document that an operation asks for no token.
var forAnybody = []map[string][]string{{}}
