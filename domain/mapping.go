package domain

import (
	"reflect"
	"slices"
	"time"
)

// Mapping is a rule: connections that come in at its origin go to a service that the
// target agent dials. The origin is a listener of the source agent, a public port or a
// public host.
//
// Rules:
//   - Source and target are live clients of the mapping's user. There are two
//     exceptions: an admin may name anonymous clients, and the source may be a client of
//     another user who redeemed a share of the mapping's user.
//   - A mapping without a source client is public.
//   - A mapping counts against the quota of its user, of the users of its clients, and
//     of every anonymous client in it.
//   - One listener address of a source client belongs to one mapping.
//   - Owner and protocol never change. The clients change only when an anonymous client
//     is claimed.
//   - A client is source or target of at most [MaxClientMappings].
//   - The id of a deleted mapping is never used again.
type Mapping struct {
	ID             int64    `json:"id"`
	UserID         int64    `json:"user_id"`
	Name           string   `json:"name,omitempty"`
	Protocol       Protocol `json:"protocol"`
	SourceClientID int64    `json:"source_client_id"`
	TargetClientID int64    `json:"target_client_id"`
	SourceUserID   int64    `json:"source_user_id,omitempty"` // the user of the source client, when it is not UserID
	TargetUserID   int64    `json:"target_user_id,omitempty"` // the user of the target client, when it is not UserID
	ShareID        int64    `json:"share_id,omitempty"`       // the share from which the mapping was made
	Origin
	Service
	Options
	Disabled  bool      `json:"disabled,omitempty"`
	Deleted   bool      `json:"deleted,omitempty"`
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
}

// MaxClientMappings is how many mappings a client may be an end of. A forwarder keeps
// all of them for each connected client, and tells an agent all that it listens for
// (wire.MaxListeners must not be lower).
const MaxClientMappings = 20_000

// Parts are what can change of a mapping. Their check is
// that of the protocol, in [faults.parts], for who makes a mapping and who changes one.
type Parts struct {
	Name string `json:"name,omitempty" maxLength:"100" example:"intranet"`
	Origin
	Service
	Options
}

// complete gives the parts with defaults for the fields that were left out.
func (p Parts) complete(kind OriginKind) Parts {
	p.Origin, p.Service = p.Origin.complete(kind), p.Service.complete()
	return p.fromTargets()
}

func (p Parts) equal(o Parts) bool { return reflect.DeepEqual(p, o) }

// Events of a mapping.
type (
	// MappingCreated begins a mapping, enabled.
	MappingCreated struct {
		MappingID      int64    `json:"mapping_id"`
		UserID         int64    `json:"user_id"`
		Name           string   `json:"name,omitempty"`
		Protocol       Protocol `json:"protocol"`
		SourceClientID int64    `json:"source_client_id"`
		TargetClientID int64    `json:"target_client_id"`
		SourceUserID   int64    `json:"source_user_id,omitempty"` // since schema 2
		ShareID        int64    `json:"share_id,omitempty"`       // since schema 2
		Origin
		Service
		Options
	}
	// MappingChanged replaces all parts of a mapping.
	MappingChanged struct{ Parts }
	// MappingDisabled closes the listener and ends the streams until MappingEnabled.
	MappingDisabled struct{}
	// MappingEnabled ends MappingDisabled.
	MappingEnabled struct{}
	// MappingDeleted ends the mapping.
	MappingDeleted struct{}
)

// EventName implements [Event].
func (MappingCreated) EventName() string { return "mapping_created" }

// EventName implements [Event].
func (MappingChanged) EventName() string { return "mapping_changed" }

// EventName implements [Event].
func (MappingDisabled) EventName() string { return "mapping_disabled" }

// EventName implements [Event].
func (MappingEnabled) EventName() string { return "mapping_enabled" }

// EventName implements [Event].
func (MappingDeleted) EventName() string { return "mapping_deleted" }

// Exists implements [Aggregate].
func (m *Mapping) Exists() bool { return m.ID != 0 }

// Live reports whether the mapping exists and was not deleted.
func (m *Mapping) Live() bool { return m.Exists() && !m.Deleted }

// Active reports whether the mapping may carry streams: it is live and enabled, and
// nothing of it is erased. Who may come in would be erased too, so a mapping that a log
// without keys has left must not be open to everybody.
func (m *Mapping) Active() bool { return m.Live() && !m.Disabled && !m.erased() }

func (m *Mapping) erased() bool {
	return slices.Contains([]string{m.LocalHost, m.PublicHost, m.TargetHost, m.Target}, Erased)
}

// Public reports whether connections come in at forwarders instead of at a client.
func (m *Mapping) Public() bool { return m.SourceClientID == 0 }

// resources are the resources that a mapping counts as.
func (m *Mapping) resources() []Resource {
	resources := []Resource{ResourceMapping}
	if !m.Disabled {
		resources = append(resources, ResourceActiveMapping)
	}
	switch m.OriginKind() {
	case OriginPort:
		resources = append(resources, ResourcePublicPort)
	case OriginHost:
		resources = append(resources, ResourcePublicHost)
	}
	return resources
}

// Parts gives the parts of the mapping.
func (m *Mapping) Parts() Parts { return Parts{m.Name, m.Origin, m.Service, m.Options} }

// Accounts are the accounts that the mapping counts against: its user, the users of its
// clients, and every anonymous client in it.
func (m *Mapping) Accounts() []int64 {
	accounts := m.Users()
	for _, end := range []int64{m.SourceClientID, m.TargetClientID} {
		if IsAnonymous(end) && !slices.Contains(accounts, end) {
			accounts = append(accounts, end)
		}
	}
	return accounts
}

// Users are the users of the mapping and of its clients, the mapping's user first.
func (m *Mapping) Users() []int64 {
	users := []int64{m.UserID}
	for _, user := range []int64{m.SourceUserID, m.TargetUserID} {
		if user != 0 && !slices.Contains(users, user) {
			users = append(users, user)
		}
	}
	return users
}

// Clone implements [Aggregate].
func (m *Mapping) Clone() Aggregate { c := *m; return &c }

// Apply implements [Aggregate].
func (m *Mapping) Apply(event Event, at time.Time) {
	switch e := event.(type) {
	case MappingCreated:
		*m = Mapping{ID: e.MappingID, UserID: e.UserID, Name: e.Name, Protocol: e.Protocol,
			SourceClientID: e.SourceClientID, TargetClientID: e.TargetClientID,
			SourceUserID: e.SourceUserID, ShareID: e.ShareID,
			Origin: e.Origin, Service: e.Service, Options: e.Options, CreatedAt: at}
	case MappingChanged:
		m.setParts(e.Parts)
	case MappingMoved:
		m.apply(e)
	case MappingDisabled:
		m.Disabled = true
	case MappingEnabled:
		m.Disabled = false
	case MappingDeleted:
		m.Deleted = true
	default:
		return
	}
	m.UpdatedAt = at
}

func (m *Mapping) setParts(p Parts) {
	m.Name, m.Origin, m.Service, m.Options = p.Name, p.Origin, p.Service, p.Options
}

func (m *Mapping) apply(e MappingMoved) {
	m.SourceClientID, m.TargetClientID = e.SourceClientID, e.TargetClientID
	m.SourceUserID, m.TargetUserID = e.SourceUserID, e.TargetUserID
}

// CreateMapping begins a mapping, enabled.
type CreateMapping struct {
	ID             int64
	UserID         int64
	Any            bool  // by an admin: the clients may be anonymous
	SourceClientID int64 // 0 = the mapping is public
	TargetClientID int64
	Protocol       Protocol
	Parts
	offer PublicOffer // for a public one

	sourceUserID int64 // set by RedeemShare
	commander    int64 // the client whose agent asks, 0 = a user; see By
}

// CommandName implements [Command].
func (CreateMapping) CommandName() string { return "create_mapping" }

// Subject implements [Command].
func (c CreateMapping) Subject() StreamID { return MappingStream(c.ID) }

// Account implements [Command].
func (c CreateMapping) Account() int64 { return c.UserID }

// Reads implements [Command].
func (c CreateMapping) Reads() []StreamID {
	reads := []StreamID{MappingStream(c.ID), UserStream(c.UserID), ClientStream(c.TargetClientID)}
	if c.SourceClientID != 0 && c.TargetClientID != c.SourceClientID {
		reads = append(reads, ClientStream(c.SourceClientID))
	}
	m := c.mapping()
	for _, account := range m.Accounts() {
		reads = append(reads, QuotaStream(account))
	}
	return reads
}

// mapping is the new mapping, without the fields that need the event streams.
func (c CreateMapping) mapping() Mapping {
	return Mapping{ID: c.ID, UserID: c.UserID, SourceClientID: c.SourceClientID, TargetClientID: c.TargetClientID,
		SourceUserID: c.sourceUserID, Protocol: c.Protocol, Origin: c.Origin, Options: Options{Targets: c.Targets}}
}

// Decide implements [Command].
func (c CreateMapping) Decide(s States) (Decision, error) {
	if err := c.check(); err != nil {
		return Decision{}, err
	}
	if err := s.need(c.Reads()...); err != nil {
		return Decision{}, err
	}
	if _, err := s.enabledUser(c.UserID); err != nil {
		return Decision{}, err
	}
	if c.SourceClientID != 0 {
		if err := s.ownClient(c.SourceClientID, c.UserID, "source", c.Any); err != nil {
			return Decision{}, err
		}
	}
	return c.decide(s, 0)
}

// WantsPublic implements [PublicCommand].
func (c CreateMapping) WantsPublic() bool { return c.SourceClientID == 0 }

// Offered implements [PublicCommand].
func (c CreateMapping) Offered(o PublicOffer) Command {
	c.offer = o
	return c
}

func (c CreateMapping) check() error {
	var f faults
	f.protocol(c.Protocol)
	kind := originKind(c.SourceClientID, c.Protocol)
	parts := c.Parts.complete(kind)
	f.parts(c.Protocol, kind, parts)
	f.targets(c.Protocol, c.TargetClientID, parts)
	if err := f.err("The mapping cannot be created as asked."); err != nil {
		return err
	}
	return c.Protocol.Unavailable()
}

// decide makes the mapping for a source that the actor may use.
func (c CreateMapping) decide(s States, share int64) (Decision, error) {
	if err := c.check(); err != nil {
		return Decision{}, err
	}
	c.Parts = c.Parts.complete(originKind(c.SourceClientID, c.Protocol))
	var err error
	if c.Options, err = c.Options.hashed(MappingStream(c.ID)); err != nil {
		return Decision{}, err
	}
	if err := s.need(c.Reads()...); err != nil {
		return Decision{}, err
	}
	if _, err := s.enabledUser(c.UserID); err != nil {
		return Decision{}, err
	}
	if err := s.ownClient(c.TargetClientID, c.UserID, "target", c.Any); err != nil {
		return Decision{}, err
	}
	if err := s.ownTargets(c.Targets, c.UserID, func(int64) bool { return false }); err != nil {
		return Decision{}, err
	}
	if s.mapping(c.ID).Exists() {
		return Decision{}, refuse(CodeIDTaken, "This mapping id is in use.")
	}
	m := c.mapping()
	origin, err := s.choosePublic(c.offer, &m)
	if err != nil {
		return Decision{}, err
	}
	m.Origin, c.Origin = origin, origin
	if share == 0 { // who shares has agreed to whoever redeems
		if err := s.commanded(c.commander, m); err != nil {
			return Decision{}, err
		}
	}
	d := Decision{Account: c.UserID, Claims: m.claims()}
	d.add(MappingStream(c.ID), MappingCreated{MappingID: c.ID, UserID: c.UserID, Name: c.Name, Protocol: c.Protocol,
		SourceClientID: c.SourceClientID, TargetClientID: c.TargetClientID, SourceUserID: c.sourceUserID, ShareID: share,
		Origin: c.Origin, Service: c.Service, Options: c.Options})
	for _, account := range m.Accounts() {
		err := s.quota(account).take(&d, QuotaTaken{Resources: m.resources(),
			ID: c.ID, SourceClientID: c.SourceClientID, TargetClientID: c.TargetClientID, FurtherClientIDs: m.furtherClients(), PublicPorts: m.portsBeyondOne()})
		if err != nil {
			return Decision{}, err
		}
	}
	d.takePublic(&m, &Mapping{})
	return d, nil
}

// ownClient refuses a client that does not exist, or that belongs to another user. An
// admin may use an anonymous client. An admin may not join the clients of two users,
// because the second user has not agreed; a share code is the way to agree.
func (s States) ownClient(id, user int64, end string, anonymous bool) error {
	cl, err := s.liveClient(id)
	if CodeOf(err) == CodeClientNotFound {
		return refuseAt(CodeClientNotFound, "There is no such "+end+" client.", end+"_client_id")
	}
	switch {
	case err != nil:
		return err
	case cl.Kind == ClientAnonymous && !anonymous:
		return refuseAt(CodeClientNotOwned, "The "+end+" client is anonymous: claim it first.", end+"_client_id")
	case cl.Kind == ClientManaged && cl.UserID != user:
		return refuseAt(CodeClientNotOwned, "The "+end+" client belongs to another user.", end+"_client_id")
	}
	return nil
}

// liveMapping gives the mapping, or the refusal when there is none.
func (s States) liveMapping(id int64) (*Mapping, error) {
	if err := s.need(MappingStream(id)); err != nil {
		return nil, err
	}
	m := s.mapping(id)
	if !m.Live() {
		return nil, refuse(CodeMappingNotFound, "There is no such mapping.")
	}
	return m, nil
}
