package api

import (
	"slices"
	"strings"
	"time"

	"github.com/oapi-codegen/nullable"

	"github.com/tunnox-net/tunnox/test/apiclient"
)

// accounts is about users, their quotas and plans.
func (s *story) accounts() {
	t, c := s.T, s.admin
	me := call(c.WhoamiWithResponse(s.ctx)).want(t, 200).JSON200
	is(t, "who asks", me.Role, apiclient.MeRoleAdmin)
	is(t, "whether the operator is a user", me.UserId.IsNull(), true)

	made := call(c.CreateUserWithResponse(s.ctx, nil, apiclient.CreateUserBody{Username: "ann", Email: "ann@example.org"})).want(t, 201)
	ann := made.JSON201.UserId
	is(t, "the name", made.JSON201.Username, "ann")
	is(t, "the status", made.JSON201.Status, apiclient.UserStatusActive)
	at := apiclient.GetUserParams{MinPosition: made.Headers201.XPosition}
	shown := call(client(t, s.other, s.other.Key, s.done).GetUserWithResponse(s.ctx, ann, &at)).want(t, 200) // at the control plane where it was not made
	is(t, "the user elsewhere", *shown.JSON200, *made.JSON201)
	version, _, _ := strings.Cut(*shown.Headers200.ETag, "-") // the second part is the version of the quota, which is shown too
	is(t, "its version", version+`"`, *made.Headers201.ETag)
	same := apiclient.GetUserParams{IfNoneMatch: shown.Headers200.ETag}
	if body := call(c.GetUserWithResponse(s.ctx, ann, &same)).want(t, 304).Body; len(body) != 0 {
		t.Errorf("304 with %q", body)
	}

	name, email := "anna", "anna@example.org"
	changed := call(c.ChangeUserWithResponse(s.ctx, ann, &apiclient.ChangeUserParams{IfMatch: shown.Headers200.ETag},
		apiclient.ChangeUserBody{Username: &name, Email: &email})).want(t, 200)
	is(t, "the new name", changed.JSON200.Username, name)
	is(t, "the new role", call(c.SetUserRoleWithResponse(s.ctx, ann, nil, apiclient.SetRoleBody{Role: "admin"})).want(t, 200).JSON200.Role, apiclient.UserRoleAdmin)
	is(t, "the role as it was", call(c.SetUserRoleWithResponse(s.ctx, ann, nil, apiclient.SetRoleBody{Role: "user"})).want(t, 200).JSON200.Role, apiclient.UserRoleUser)
	is(t, "disabled", call(c.DisableUserWithResponse(s.ctx, ann, nil)).want(t, 200).JSON200.Status, apiclient.UserStatusDisabled)
	disabled := apiclient.ListUsersParamsStatusDisabled
	is(t, "the disabled ones", idsOf(call(c.ListUsersWithResponse(s.ctx, &apiclient.ListUsersParams{Status: &disabled})).want(t, 200).JSON200.Items), []int64{ann})
	is(t, "enabled", call(c.EnableUserWithResponse(s.ctx, ann, nil)).want(t, 200).JSON200.Status, apiclient.UserStatusActive)
	is(t, "all users", idsOf(call(c.ListUsersWithResponse(s.ctx, nil)).want(t, 200).JSON200.Items), []int64{ann})

	// A field that is left out, null, and a number mean three different things.
	q := call(c.SetQuotaWithResponse(s.ctx, ann, nil, apiclient.SetQuotaBody{MaxClients: some(7), MaxMappings: some(9)})).want(t, 200).JSON200
	is(t, "limits that were set", []any{q.MaxClients.MustGet(), q.MaxMappings.MustGet(), q.MaxActiveMappings.IsNull()}, []any{int64(7), int64(9), true})
	q = call(c.PostQuotaWithResponse(s.ctx, ann, nil, apiclient.SetQuotaBody{MaxMappings: nullable.NewNullNullable[int64]()})).want(t, 200).JSON200
	is(t, "limits of which one was taken away", []any{q.MaxClients.MustGet(), q.MaxMappings.IsNull()}, []any{int64(7), true})
	plans := call(c.ListPlansWithResponse(s.ctx)).want(t, 200).JSON200.Items
	pro := plans[slices.IndexFunc(plans, func(p apiclient.Plan) bool { return p.Name == "pro" })]
	planned := call(c.SetUserPlanWithResponse(s.ctx, ann, nil, apiclient.SetPlanBody{Plan: "pro"})).want(t, 200).JSON200
	is(t, "the plan", planned.Plan.MustGet(), "pro")
	q = call(c.GetQuotaWithResponse(s.ctx, ann, nil)).want(t, 200).JSON200
	is(t, "the plan's limits", []any{q.MaxClients, q.MaxMappings, q.TotalBandwidthLimit, q.MonthlyTrafficLimit},
		[]any{pro.MaxClients, pro.MaxMappings, pro.TotalBandwidthLimit, pro.MonthlyTrafficLimit})
	is(t, "what is used", []int64{q.Clients, q.Mappings, q.CurrentMonthTraffic.MustGet()}, []int64{0, 0, 0})

	history := call(c.UserHistoryWithResponse(s.ctx, ann, nil)).want(t, 200).JSON200.Items
	is(t, "the user's history", namesOf(history), []string{"user_created", "user_changed", "user_role_set", "user_role_set", "user_disabled", "user_enabled", "user_plan_set"})

	// As of before the change, the user is unchanged.
	then := call(c.GetUserWithResponse(s.ctx, ann, &apiclient.GetUserParams{AsOf: text(*made.Headers201.XPosition)})).want(t, 200).JSON200
	is(t, "the user then", *then, *made.JSON201)

	// The log has no address of an erased user any more.
	call(c.EraseUserWithResponse(s.ctx, ann, nil)).want(t, 204)
	created := call(c.UserHistoryWithResponse(s.ctx, ann, nil)).want(t, 200).JSON200.Items[0]
	if facts := created.Data.(map[string]any); facts["email"] == "ann@example.org" || facts["username"] == "ann" {
		t.Errorf("the log still knows an erased user: %v", facts)
	}
	bob := call(c.CreateUserWithResponse(s.ctx, nil, apiclient.CreateUserBody{Username: "bob", Email: "bob@example.org"})).want(t, 201).JSON201.UserId
	call(c.DeleteUserWithResponse(s.ctx, bob, nil)).want(t, 204)
	call(c.GetUserWithResponse(s.ctx, bob, nil)).want(t, 404)
}

// logins is about passwords, tokens and keys.
func (s *story) logins() {
	t, c := s.T, s.admin
	password := "correct horse"
	ann := call(c.CreateUserWithResponse(s.ctx, nil, apiclient.CreateUserBody{Username: "login", Email: "login@example.org", Password: &password})).want(t, 201).JSON201
	is(t, "whether there is a password", ann.HasPassword, true)
	call(s.as("").LoginWithResponse(s.ctx, apiclient.LoginBody{Username: "login", Password: "battery staple"})).want(t, 401)
	first := call(s.as("").LoginWithResponse(s.ctx, apiclient.LoginBody{Username: "login", Password: password})).want(t, 200).JSON200
	is(t, "how long a token lasts", []int64{first.ExpiresIn, first.RefreshExpiresIn}, []int64{15 * 60, 7 * 24 * 60 * 60})
	second := call(s.as("").RefreshWithResponse(s.ctx, apiclient.RefreshBody{RefreshToken: first.RefreshToken})).want(t, 200).JSON200
	mine := s.as(second.AccessToken)
	me := call(mine.WhoamiWithResponse(s.ctx)).want(t, 200).JSON200
	is(t, "who has logged in", me.UserId.MustGet(), ann.UserId)
	is(t, "the role", me.Role, apiclient.MeRoleUser)

	ends := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	scopes := nullable.NewNullableWithValue([]apiclient.CreateKeyBodyScopes{"read"})
	key := call(mine.CreateKeyWithResponse(s.ctx, nil, apiclient.CreateKeyBody{Name: ptr("ci"), Scopes: scopes, ExpiresAt: &ends})).want(t, 201).JSON201
	is(t, "the key's owner", key.UserId.MustGet(), ann.UserId)
	is(t, "the key's end", key.ExpiresAt.MustGet(), ends)
	withKey := s.as(*key.Key)
	is(t, "what the key may", call(withKey.WhoamiWithResponse(s.ctx)).want(t, 200).JSON200.Scopes, []string{"read"})
	s.problem(call(withKey.CreateClientWithResponse(s.ctx, nil, apiclient.CreateClientBody{Name: ptr("c")})).want(t, 403).ApplicationproblemJSON403, 403, "scope_missing", "")
	shown := call(mine.GetKeyWithResponse(s.ctx, key.KeyId, nil)).want(t, 200).JSON200
	is(t, "the key's prefix", shown.Prefix, (*key.Key)[:len(shown.Prefix)])
	listed := call(mine.ListKeysWithResponse(s.ctx, nil)).want(t, 200).JSON200.Items
	if len(listed) != 1 || listed[0].KeyId != key.KeyId || listed[0].LastUsed.IsNull() {
		t.Errorf("keys of the user are %+v", listed)
	}
	call(mine.RevokeKeyWithResponse(s.ctx, key.KeyId, nil)).want(t, 204)
	call(withKey.WhoamiWithResponse(s.ctx)).want(t, 401)

	// A refresh token that is used twice ends the login.
	call(mine.LogoutWithResponse(s.ctx)).want(t, 204)
	call(mine.WhoamiWithResponse(s.ctx)).want(t, 401)
}

func idsOf(users []apiclient.User) []int64 {
	var ids []int64
	for _, u := range users {
		ids = append(ids, u.UserId)
	}
	return ids
}

func namesOf(events []apiclient.Event) []string {
	var names []string
	for _, e := range events {
		names = append(names, e.Name)
	}
	return names
}
