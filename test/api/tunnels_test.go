package api

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/oapi-codegen/nullable"

	"github.com/tunnox-net/tunnox/test/apiclient"
	"github.com/tunnox-net/tunnox/test/programs"
)

func ptr[T any](v T) *T { return &v }

func some(n int64) nullable.Nullable[int64] { return nullable.NewNullableWithValue(n) }

func text(n int64) *string { return ptr(strconv.FormatInt(n, 10)) }

// tunnels is about clients with agents, mappings that carry bytes, and the counts of
// these bytes.
func (s *story) tunnels() {
	t, c := s.T, s.admin
	user := call(c.CreateUserWithResponse(s.ctx, nil, apiclient.CreateUserBody{Username: "tunnels", Email: "tunnels@example.org"})).want(t, 201).JSON201.UserId
	source, target := s.client(user, "source"), s.client(user, "target")
	s.server.Join(t, s.first, source)
	s.server.Join(t, s.first, target)

	renamed := call(c.ChangeClientWithResponse(s.ctx, source.ID, nil, apiclient.ChangeClientBody{Name: ptr("desk"), Description: ptr("under the stairs")})).want(t, 200).JSON200
	is(t, "the client's name", renamed.Name, "desk")
	online := apiclient.ListClientsParamsStatusOnline
	listed := call(c.ListClientsWithResponse(s.ctx, &apiclient.ListClientsParams{UserId: &user, Status: &online})).want(t, 200).JSON200.Items
	is(t, "how many are online", len(listed), 2)
	is(t, "the user's clients", len(call(c.ListClientsOfUserWithResponse(s.ctx, user, nil)).want(t, 200).JSON200.Items), 2)

	service := programs.Listen(t, programs.Echo).Port
	wanted := apiclient.CreateMappingBody{UserId: &user, Name: ptr("m"), Protocol: apiclient.CreateMappingBodyProtocolTcp, SourceClientId: &source.ID,
		TargetClientId: &target.ID, LocalPort: ptr(int64(programs.FreePort(t))), TargetHost: ptr("127.0.0.1"), TargetPort: ptr(int64(1))}
	m := call(c.CreateMappingWithResponse(s.ctx, nil, wanted)).want(t, 201).JSON201
	is(t, "the mapping's ends", []int64{m.SourceClientId.MustGet(), m.TargetClientId, m.LocalPort}, []int64{source.ID, target.ID, *wanted.LocalPort})
	changed := call(c.ChangeMappingWithResponse(s.ctx, m.MappingId, nil, apiclient.ChangeMappingBody{TargetPort: ptr(int64(service))})).want(t, 200).JSON200
	is(t, "the service", changed.TargetPort, int64(service))
	is(t, "disabled", call(c.DisableMappingWithResponse(s.ctx, m.MappingId, nil)).want(t, 200).JSON200.Status, apiclient.MappingStatusDisabled)
	is(t, "enabled", call(c.EnableMappingWithResponse(s.ctx, m.MappingId, nil)).want(t, 200).JSON200.Status, apiclient.MappingStatusActive)
	is(t, "the mapping", call(c.GetMappingWithResponse(s.ctx, m.MappingId, nil)).want(t, 200).JSON200.Status, apiclient.MappingStatusActive)
	for what, items := range map[string][]apiclient.Mapping{
		"of all":        call(c.ListMappingsWithResponse(s.ctx, &apiclient.ListMappingsParams{UserId: &user})).want(t, 200).JSON200.Items,
		"of the user":   call(c.ListMappingsOfUserWithResponse(s.ctx, user, nil)).want(t, 200).JSON200.Items,
		"of the client": call(c.ListMappingsOfClientWithResponse(s.ctx, target.ID, nil)).want(t, 200).JSON200.Items,
	} {
		if len(items) != 1 || items[0].MappingId != m.MappingId {
			t.Errorf("mappings %s are %+v", what, items)
		}
	}

	message, tries := strings.Repeat("tunnox", 1000), 0
	programs.Eventually(t, 20*time.Second, func() error {
		tries++
		back, err := programs.Ask(int(m.LocalPort), []byte(message))
		if err == nil && string(back) != message {
			err = fmt.Errorf("%d bytes came back", len(back))
		}
		return err
	})
	s.counted(user, source.ID, m.MappingId, int64(len(message)), tries == 1)

	ended := call(c.DisconnectClientWithResponse(s.ctx, source.ID, nil)).want(t, 200)
	is(t, "whose sessions ended", ended.JSON200.ClientId, source.ID)
	asked := call(c.ListEventsWithResponse(s.ctx, &apiclient.ListEventsParams{After: ptr(*ended.Headers200.XPosition - 1), Limit: ptr(int64(1))})).want(t, 200).JSON200.Items
	is(t, "what the log has of it", namesOf(asked), []string{"client_disconnect_requested"})
	is(t, "whose it is", asked[0].Owner.MustGet(), user)
	is(t, "where the sessions were", fmt.Sprint(asked[0].Data.(map[string]any)["nodes"]), fmt.Sprint(ended.JSON200.Nodes))
	s.first.WaitOnline(t, source.ID) // its agent connects again
	lonely := s.client(user, "lonely")
	is(t, "disabled", call(c.DisableClientWithResponse(s.ctx, lonely.ID, nil)).want(t, 200).JSON200.Status, apiclient.ClientStatusDisabled)
	is(t, "enabled", call(c.EnableClientWithResponse(s.ctx, lonely.ID, nil)).want(t, 200).JSON200.Status, apiclient.ClientStatusOffline)
	if code := call(c.RotateCredentialWithResponse(s.ctx, lonely.ID, nil)).want(t, 200).JSON200.AuthCode; code == nil || *code == lonely.AuthCode {
		t.Errorf("a new credential is %v", code)
	}
	call(c.DeleteClientWithResponse(s.ctx, lonely.ID, nil)).want(t, 204)
	is(t, "the client's history", namesOf(call(c.ClientHistoryWithResponse(s.ctx, lonely.ID, nil)).want(t, 200).JSON200.Items),
		[]string{"client_created", "client_disabled", "client_enabled", "client_credential_rotated", "client_deleted"})
	call(c.DeleteMappingWithResponse(s.ctx, m.MappingId, nil)).want(t, 204)
	is(t, "the mapping's history", namesOf(call(c.MappingHistoryWithResponse(s.ctx, m.MappingId, nil)).want(t, 200).JSON200.Items),
		[]string{"mapping_created", "mapping_changed", "mapping_disabled", "mapping_enabled", "mapping_deleted"})
	s.claim(user)
}

// client makes a client for an agent.
func (s *story) client(user int64, name string) programs.Client {
	made := call(s.admin.CreateClientWithResponse(s.ctx, nil, apiclient.CreateClientBody{UserId: &user, Name: &name})).want(s.T, 201).JSON201
	is(s.T, "a new client", made.Status, apiclient.ClientWithCredentialStatusOffline)
	return programs.Client{ID: made.ClientId, AuthCode: *made.AuthCode}
}

// counted waits until a client's usage includes the message that was sent and echoed,
// exactly if there was nothing else, and checks all other operations about usage.
func (s *story) counted(user, client, mapping, size int64, all bool) {
	want := apiclient.TrafficSum{Connections: 1, ToTarget: size, ToSource: size, Total: 2 * size}
	programs.Eventually(s.T, 30*time.Second, func() error {
		got := call(s.admin.ClientStatsWithResponse(s.ctx, client)).want(s.T, 200).JSON200
		if got.ConnectionsOpen != 0 || all && got.Today != want || got.Today.ToTarget < size || got.Today.ToSource < size {
			return fmt.Errorf("the client's use is %+v, want %+v", got, want)
		}
		want = got.Today
		return nil
	})
	t, c := s.T, s.admin
	is(t, "the user's use", call(c.UserStatsWithResponse(s.ctx, user)).want(t, 200).JSON200.CurrentMonth, want)
	uses := call(c.ListUserStatsWithResponse(s.ctx, nil)).want(t, 200).JSON200.Items
	if i := slices.IndexFunc(uses, func(u apiclient.UserStats) bool { return u.UserId == user }); i < 0 || uses[i].CurrentMonthTraffic != want.Total {
		t.Errorf("among all users' uses %+v is not this one's", uses)
	}
	chart := call(c.TrafficStatsWithResponse(s.ctx, &apiclient.TrafficStatsParams{MappingId: &mapping})).want(t, 200).JSON200
	is(t, "the mapping's use", chart.Total, want)
	is(t, "the bars of a day", len(chart.Buckets), 24)
	if system := call(c.SystemStatsWithResponse(s.ctx)).want(t, 200).JSON200; system.Today.Total < want.Total || system.Users < 1 || system.Nodes < 1 {
		t.Errorf("the system's use is %+v", system)
	}
	if now := call(c.RealtimeStatsWithResponse(s.ctx)).want(t, 200).JSON200; now.Nodes < 1 || now.ConnectionsOpen != 0 || time.Since(now.At) > time.Minute {
		t.Errorf("what flows now is %+v", now)
	}
	is(t, "the quota's use", call(c.GetQuotaWithResponse(s.ctx, user, nil)).want(t, 200).JSON200.CurrentMonthTraffic.MustGet(), want.Total)
}

// claim gives an anonymous client to the user.
func (s *story) claim(user int64) {
	t := s.T
	claimed := call(s.admin.ClaimClientWithResponse(s.ctx, nil, apiclient.ClaimBody{ClaimCode: s.claimCode(t), UserId: &user, Name: ptr("pi")})).want(t, 201).JSON201
	is(t, "whose it is now", claimed.UserId.MustGet(), user)
	is(t, "its name", claimed.Name, "pi")
	s.first.WaitOnline(t, claimed.ClientId)
	is(t, "its type", call(s.admin.GetClientWithResponse(s.ctx, claimed.ClientId, nil)).want(t, 200).JSON200.ClientType, apiclient.ClientClientTypeManaged)
	was := call(s.admin.AuditWithResponse(s.ctx, &apiclient.AuditParams{Type: &[]string{"client_claimed"}})).want(t, 200).JSON200.Items[0].Owner.MustGet()
	call(s.admin.GetClientWithResponse(s.ctx, was, nil)).want(t, 404)
}

// shares is about a service of one user for which another user listens.
func (s *story) shares() {
	t, c := s.T, s.admin
	ann := call(c.CreateUserWithResponse(s.ctx, nil, apiclient.CreateUserBody{Username: "sharing", Email: "sharing@example.org"})).want(t, 201).JSON201.UserId
	bob := call(c.CreateUserWithResponse(s.ctx, nil, apiclient.CreateUserBody{Username: "guest", Email: "guest@example.org"})).want(t, 201).JSON201.UserId
	desk, laptop := s.client(ann, "desk"), s.client(bob, "laptop")
	key := call(c.CreateKeyWithResponse(s.ctx, nil, apiclient.CreateKeyBody{UserId: &bob})).want(t, 201).JSON201
	offer := apiclient.CreateShareBody{UserId: &ann, Name: ptr("db"), Protocol: "tcp", TargetClientId: desk.ID, TargetHost: ptr("127.0.0.1"), TargetPort: ptr(int64(5432)), MaxUses: ptr(int64(2))}
	share := call(c.CreateShareWithResponse(s.ctx, nil, offer)).want(t, 201).JSON201
	is(t, "whose service it is", share.UserId, ann)
	m := call(s.as(*key.Key).RedeemShareWithResponse(s.ctx, nil, apiclient.RedeemBody{Code: *share.Code, SourceClientId: laptop.ID, LocalPort: 5432})).want(t, 201).JSON201
	is(t, "the mapping's users", []int64{m.UserId, m.SourceUserId.MustGet(), m.ShareId.MustGet()}, []int64{ann, bob, share.ShareId})
	is(t, "how often it was redeemed", call(c.GetShareWithResponse(s.ctx, share.ShareId, nil)).want(t, 200).JSON200.Uses, int64(1))
	listed := call(c.ListSharesWithResponse(s.ctx, &apiclient.ListSharesParams{UserId: &ann})).want(t, 200).JSON200.Items
	if len(listed) != 1 || listed[0].ShareId != share.ShareId {
		t.Errorf("shares are %+v", listed)
	}
	call(c.RevokeShareWithResponse(s.ctx, share.ShareId, nil)).want(t, 204)
	call(c.GetShareWithResponse(s.ctx, share.ShareId, nil)).want(t, 404)
}

// invites is about machines that a user lets in. test/flow tests how a machine joins.
func (s *story) invites() {
	t, c := s.T, s.admin
	host := call(c.CreateUserWithResponse(s.ctx, nil, apiclient.CreateUserBody{Username: "inviting", Email: "inviting@example.org"})).want(t, 201).JSON201.UserId
	offer := apiclient.CreateInviteBody{UserId: &host, Name: ptr("laptops"), Uses: ptr(int64(3)), ExpiresIn: ptr(int64(3600))}
	invite := call(c.CreateInviteWithResponse(s.ctx, nil, offer)).want(t, 201).JSON201
	if invite.Code == nil || !strings.HasPrefix(*invite.Code, "tnxj_") {
		t.Errorf("the invitation's code is %v", invite.Code)
	}
	shown := call(c.GetInviteWithResponse(s.ctx, invite.InviteId, nil)).want(t, 200).JSON200
	is(t, "whose clients they become", shown.UserId, host)
	is(t, "how many may join", shown.MaxUses, int64(3))
	listed := call(c.ListInvitesWithResponse(s.ctx, &apiclient.ListInvitesParams{UserId: &host})).want(t, 200).JSON200.Items
	if len(listed) != 1 || listed[0].InviteId != invite.InviteId {
		t.Errorf("invitations are %+v", listed)
	}
	call(c.RevokeInviteWithResponse(s.ctx, invite.InviteId, nil)).want(t, 204)
	call(c.GetInviteWithResponse(s.ctx, invite.InviteId, nil)).want(t, 404)
}

// domains is about names of a user's own. test/certificates tests what visitors see.
func (s *story) domains() {
	t, c := s.T, s.admin
	user := call(c.CreateUserWithResponse(s.ctx, nil, apiclient.CreateUserBody{Username: "owner", Email: "owner@example.org"})).want(t, 201).JSON201.UserId
	made := call(c.CreateDomainWithResponse(s.ctx, nil, apiclient.CreateDomainBody{UserId: &user, Host: "own.example.com"})).want(t, 201).JSON201
	call(c.VerifyDomainWithResponse(s.ctx, made.DomainId, nil)).want(t, 409)
	s.dns.SetText(made.ProofName, made.ProofValue)
	verified := call(c.VerifyDomainWithResponse(s.ctx, made.DomainId, nil)).want(t, 200).JSON200
	is(t, "the verified domain", verified.Host, "own.example.com")
	is(t, "its state", verified.Status, apiclient.Verified)
	shown := call(c.GetDomainWithResponse(s.ctx, made.DomainId, nil)).want(t, 200).JSON200
	is(t, "its user", shown.UserId, user)
	listed := call(c.ListDomainsWithResponse(s.ctx, &apiclient.ListDomainsParams{UserId: &user})).want(t, 200).JSON200.Items
	if len(listed) != 1 || listed[0].DomainId != made.DomainId {
		t.Errorf("domains are %+v", listed)
	}
	call(c.DeleteDomainWithResponse(s.ctx, made.DomainId, nil)).want(t, 204)
	call(c.GetDomainWithResponse(s.ctx, made.DomainId, nil)).want(t, 404)
}
