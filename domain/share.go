package domain

import (
	"bytes"
	"crypto/subtle"
	"fmt"
	"slices"
	"time"
)

// Share gives another user access to a service behind a client of the sharer. With its
// code that user makes a mapping whose source is a client of their own.
//
// Rules: the log keeps a hash of the code. A share is good for a number of uses,
// and until it expires or is revoked. The mapping of a use belongs to the sharer and
// counts against both accounts; it stays when the share ends. A share ends when its
// client is deleted.
type Share struct {
	ID             int64    `json:"id"`
	UserID         int64    `json:"user_id"`
	Name           string   `json:"name,omitempty"`
	TargetClientID int64    `json:"target_client_id"`
	Protocol       Protocol `json:"protocol"`
	Service
	Options
	Hash      []byte    `json:"hash"`
	MaxUses   int64     `json:"max_uses"`
	Uses      int64     `json:"uses"`
	ExpiresAt time.Time `json:"expires_at,omitzero"`
	Revoked   bool      `json:"revoked,omitempty"`
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
}

const (
	// MaxShares is how many live shares a user may hold.
	MaxShares = 1000
	// MaxShareUses is how often a share may be used at most.
	MaxShareUses = 1000

	hashLength = 32 // bytes, SHA-256
)

// Events of a share.
type (
	// ShareCreated begins a share.
	ShareCreated struct {
		ShareID        int64    `json:"share_id"`
		UserID         int64    `json:"user_id"`
		Name           string   `json:"name,omitempty"`
		TargetClientID int64    `json:"target_client_id"`
		Protocol       Protocol `json:"protocol"`
		Service
		Options
		Hash      []byte    `json:"hash"`
		MaxUses   int64     `json:"max_uses"`
		ExpiresAt time.Time `json:"expires_at,omitzero"`
	}
	// ShareRedeemed counts a use: a mapping was made for a client.
	ShareRedeemed struct {
		MappingID int64 `json:"mapping_id"`
		ClientID  int64 `json:"client_id"`
		Account   int64 `json:"account"`
	}
	// ShareRevoked ends a share before its time.
	ShareRevoked struct{}
)

// EventName implements [Event].
func (ShareCreated) EventName() string { return "share_created" }

// EventName implements [Event].
func (ShareRedeemed) EventName() string { return "share_redeemed" }

// EventName implements [Event].
func (ShareRevoked) EventName() string { return "share_revoked" }

// Exists implements [Aggregate].
func (h *Share) Exists() bool { return h.ID != 0 }

// Live reports whether the share has uses left and was not revoked; it may have
// expired.
func (h *Share) Live() bool { return h.Exists() && !h.Revoked && h.Uses < h.MaxUses }

// Expired reports whether the share's time is over at a moment.
func (h *Share) Expired(at time.Time) bool { return !h.ExpiresAt.IsZero() && !at.Before(h.ExpiresAt) }

// Redeemable refuses whoever has not the code, and everybody when the share has ended.
// A caller without the code must not learn whether the share exists.
func (h *Share) Redeemable(hash []byte, at time.Time) error {
	if !h.Exists() || subtle.ConstantTimeCompare(h.Hash, hash) == 0 {
		return refuseAt(CodeShareNotFound, "There is no share with this code. Check it, or ask for another one.", "code")
	}
	if !h.Live() || h.Expired(at) {
		return refuseAt(CodeShareEnded, "This share code was used up, was revoked or has expired. Ask for another one.", "code")
	}
	return nil
}

// Clone implements [Aggregate].
func (h *Share) Clone() Aggregate {
	c := *h
	c.Hash = bytes.Clone(h.Hash)
	return &c
}

// Apply implements [Aggregate].
func (h *Share) Apply(event Event, at time.Time) {
	switch e := event.(type) {
	case ShareCreated:
		*h = Share{ID: e.ShareID, UserID: e.UserID, Name: e.Name, TargetClientID: e.TargetClientID, Protocol: e.Protocol,
			Service: e.Service, Options: e.Options, Hash: e.Hash, MaxUses: e.MaxUses, ExpiresAt: e.ExpiresAt, CreatedAt: at}
	case ShareRedeemed:
		h.Uses++
	case ShareRevoked:
		h.Revoked = true
	default:
		return
	}
	h.UpdatedAt = at
}

// CreateShare begins a share.
type CreateShare struct {
	ID             int64
	UserID         int64
	Name           string
	TargetClientID int64
	Protocol       Protocol
	Service
	Options
	Hash      []byte
	MaxUses   int64
	ExpiresAt time.Time // zero = never
	At        time.Time // now; a share does not begin expired
	commander int64     // the client whose agent asks, 0 = a user; see By
}

// CommandName implements [Command].
func (CreateShare) CommandName() string { return "create_share" }

// Subject implements [Command].
func (c CreateShare) Subject() StreamID { return ShareStream(c.ID) }

// Account implements [Command].
func (c CreateShare) Account() int64 { return c.UserID }

// Reads implements [Command].
func (c CreateShare) Reads() []StreamID {
	return []StreamID{ShareStream(c.ID), UserStream(c.UserID), ClientStream(c.TargetClientID), QuotaStream(c.UserID)}
}

// Decide implements [Command].
func (c CreateShare) Decide(s States) (Decision, error) {
	c.Service = c.Service.complete()
	var f faults
	f.text("name", c.Name, 0, maxNameLength)
	f.protocol(c.Protocol)
	c.Protocol.checkService(&f, c.Service)
	f.servicePorts("target_port_last", c.Service, OriginAgent, PortRange{})
	c.Options.check(&f, c.Protocol, OriginAgent)
	if len(c.Targets) > 0 {
		f.add("targets", "are for mappings: a share has one service")
	}
	if c.HeldBy.source() {
		f.add("held_by", "must be target or left out: a share has no source yet")
	}
	f.hash("hash", c.Hash)
	if c.MaxUses < 1 || c.MaxUses > MaxShareUses {
		f.add("max_uses", fmt.Sprintf("must be 1 to %d, is %d", MaxShareUses, c.MaxUses))
	}
	if !c.ExpiresAt.IsZero() && !c.ExpiresAt.After(c.At) {
		f.add("expires_at", "must be in the future")
	}
	if err := f.err("The share cannot be created as asked."); err != nil {
		return Decision{}, err
	}
	if err := c.Protocol.Unavailable(); err != nil {
		return Decision{}, err // or nobody could redeem it
	}
	if row := c.Protocol.row(); !slices.Contains(row.origins, OriginAgent) {
		return Decision{}, refuseAt(CodeInvalid, fmt.Sprintf("A share of protocol %s cannot be redeemed: its connections come in at %s only.", c.Protocol, row.wheres()), "protocol")
	}
	if _, err := s.enabledUser(c.UserID); err != nil {
		return Decision{}, err
	}
	if err := s.ownClient(c.TargetClientID, c.UserID, "target", false); err != nil {
		return Decision{}, err
	}
	if err := s.commanding(c.commander); err != nil {
		return Decision{}, err
	}
	if s.share(c.ID).Exists() {
		return Decision{}, refuse(CodeIDTaken, "This share id is in use.")
	}
	options, err := c.Options.hashed(ShareStream(c.ID))
	if err != nil {
		return Decision{}, err
	}
	d := Decision{Account: c.UserID}
	d.add(ShareStream(c.ID), ShareCreated{ShareID: c.ID, UserID: c.UserID, Name: c.Name, TargetClientID: c.TargetClientID,
		Protocol: c.Protocol, Service: c.Service, Options: options, Hash: c.Hash, MaxUses: c.MaxUses, ExpiresAt: c.ExpiresAt})
	return d, s.quota(c.UserID).take(&d, QuotaTaken{Resources: []Resource{ResourceShare}, ID: c.ID, TargetClientID: c.TargetClientID})
}

// RevokeShare ends a share before its time.
type RevokeShare struct{ ID int64 }

// CommandName implements [Command].
func (RevokeShare) CommandName() string { return "revoke_share" }

// Subject implements [Command].
func (c RevokeShare) Subject() StreamID { return ShareStream(c.ID) }

// Account implements [Command].
func (RevokeShare) Account() int64 { return 0 }

// Reads implements [Command].
func (c RevokeShare) Reads() []StreamID { return []StreamID{ShareStream(c.ID)} }

// Decide implements [Command].
func (c RevokeShare) Decide(s States) (Decision, error) {
	h := s.share(c.ID)
	if !h.Live() {
		return Decision{}, refuse(CodeShareNotFound, "There is no such share.")
	}
	if err := s.need(QuotaStream(h.UserID)); err != nil {
		return Decision{}, err
	}
	d := Decision{Account: h.UserID}
	endShare(&d, c.ID, h.UserID)
	return d, nil
}

func endShare(d *Decision, id, user int64) {
	d.add(ShareStream(id), ShareRevoked{})
	d.Closes = append(d.Closes, ShareStream(id))
	d.add(QuotaStream(user), QuotaReturned{Resources: []Resource{ResourceShare}, ID: id})
}

// RedeemShare makes a mapping from a share: the source is a client of the redeemer, the
// service is the shared one.
type RedeemShare struct {
	ID             int64 // of the share
	Hash           []byte
	MappingID      int64
	RedeemerID     int64 // the user whose client listens
	Any            bool  // by an admin: the client may belong to any user, or be anonymous
	SourceClientID int64
	Name           string // "" = the share's
	Held           bool   // the mapping ends with the source's agent
	Origin
	At        time.Time // now
	commander int64     // the client whose agent asks, 0 = a user; see By
}

// CommandName implements [Command].
func (RedeemShare) CommandName() string { return "redeem_share" }

// Subject implements [Command].
func (c RedeemShare) Subject() StreamID { return MappingStream(c.MappingID) }

// Account implements [Command].
func (RedeemShare) Account() int64 { return 0 }

// Reads implements [Command].
func (c RedeemShare) Reads() []StreamID {
	return []StreamID{MappingStream(c.MappingID), ShareStream(c.ID), ClientStream(c.SourceClientID)}
}

// Decide implements [Command].
func (c RedeemShare) Decide(s States) (Decision, error) {
	h := s.share(c.ID)
	if err := h.Redeemable(c.Hash, c.At); err != nil {
		return Decision{}, err
	}
	m := CreateMapping{ID: c.MappingID, UserID: h.UserID, SourceClientID: c.SourceClientID, TargetClientID: h.TargetClientID,
		Protocol: h.Protocol, Parts: Parts{Name: c.Name, Origin: c.Origin, Service: h.Service, Options: h.Options}}
	if m.Name == "" {
		m.Name = h.Name
	}
	if c.Held {
		m.HeldBy = m.HeldBy.andSource()
	}
	if err := s.commanding(c.commander); err != nil {
		return Decision{}, err
	}
	source := s.client(c.SourceClientID)
	redeemer := c.RedeemerID
	if c.Any {
		redeemer = source.UserID
	}
	if err := s.ownClient(c.SourceClientID, redeemer, "source", c.Any); err != nil {
		return Decision{}, err
	}
	if source.Kind == ClientManaged && source.UserID != h.UserID {
		m.sourceUserID = source.UserID
	}
	d, err := m.decide(s, h.ID)
	if err != nil {
		return Decision{}, err
	}
	if m.sourceUserID != 0 {
		if err := s.need(UserStream(m.sourceUserID)); err != nil {
			return Decision{}, err
		}
		if _, err := s.enabledUser(m.sourceUserID); err != nil {
			return Decision{}, err
		}
	}
	d.add(ShareStream(c.ID), ShareRedeemed{MappingID: c.MappingID, ClientID: c.SourceClientID, Account: source.AccountID()})
	if h.Uses+1 == h.MaxUses {
		d.Closes = append(d.Closes, ShareStream(c.ID))
		d.add(QuotaStream(h.UserID), QuotaReturned{Resources: []Resource{ResourceShare}, ID: c.ID})
	}
	return d, nil
}
