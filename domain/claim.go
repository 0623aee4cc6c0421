package domain

import (
	"bytes"
)

// ClientClaimed ends an anonymous client for ever. A managed client of a user takes
// its place, with another id and the same credential.
type ClientClaimed struct {
	ClientID int64 `json:"client_id"` // the id of the managed client
	UserID   int64 `json:"user_id"`
}

// EventName implements [Event].
func (ClientClaimed) EventName() string { return "client_claimed" }

// MappingMoved replaces the client ids of a mapping after a client was claimed.
type MappingMoved struct {
	SourceClientID int64 `json:"source_client_id"`
	TargetClientID int64 `json:"target_client_id"`
	SourceUserID   int64 `json:"source_user_id,omitempty"`
	TargetUserID   int64 `json:"target_user_id,omitempty"`
}

// EventName implements [Event].
func (MappingMoved) EventName() string { return "mapping_moved" }

// QuotaMoved notes in an account's quota that a mapping has other client ids.
type QuotaMoved struct {
	ID               int64   `json:"id"`
	SourceClientID   int64   `json:"source_client_id"`
	TargetClientID   int64   `json:"target_client_id"`
	FurtherClientIDs []int64 `json:"further_client_ids,omitempty"` // since schema 2: clients of further targets
}

// EventName implements [Event].
func (QuotaMoved) EventName() string { return "quota_moved" }

// ClaimClient makes an anonymous client a managed one of a user, with all the
// mappings it is part of, in one append. The caller has checked a proof that was made
// with the client's credential.
type ClaimClient struct {
	ID        int64 // of the anonymous client
	NewID     int64 // of the managed client
	UserID    int64
	Name      string // "" = as it is
	PublicKey []byte // the one the proof was checked with
}

// CommandName implements [Command].
func (ClaimClient) CommandName() string { return "claim_client" }

// Subject implements [Command].
func (c ClaimClient) Subject() StreamID { return ClientStream(c.NewID) }

// Account implements [Command].
func (c ClaimClient) Account() int64 { return c.UserID }

// Reads implements [Command].
func (c ClaimClient) Reads() []StreamID {
	return []StreamID{ClientStream(c.NewID), ClientStream(c.ID), UserStream(c.UserID), QuotaStream(c.UserID), QuotaStream(c.ID)}
}

// Decide implements [Command].
func (c ClaimClient) Decide(s States) (Decision, error) {
	old, err := c.claimed(s)
	if err != nil {
		return Decision{}, err
	}
	if c.Name == "" {
		c.Name = old.Name
	}
	if c.Name == "" {
		c.Name = "claimed"
	}
	var f faults
	f.registeredID("client_id", c.NewID)
	f.text("client_name", c.Name, 1, maxNameLength)
	if err := f.err("The client cannot be claimed as asked."); err != nil {
		return Decision{}, err
	}
	if _, err := s.enabledUser(c.UserID); err != nil {
		return Decision{}, err
	}
	if s.client(c.NewID).Exists() {
		return Decision{}, refuse(CodeIDTaken, "This client id is in use.")
	}
	d := Decision{Account: c.UserID}
	d.add(ClientStream(c.NewID), ClientCreated{ClientID: c.NewID, UserID: c.UserID, Name: c.Name,
		Description: old.Description, PublicKey: old.PublicKey, Commands: old.Commands})
	// Each addition is checked against the quota that the one before it left.
	quota := s.quota(c.UserID).Clone().(*Quota)
	if err := quota.takeNow(&d, QuotaTaken{Resources: []Resource{ResourceClient}, ID: c.NewID}); err != nil {
		return Decision{}, err
	}
	if err := c.moveMappings(s, &d, quota); err != nil {
		return Decision{}, err
	}
	d.addOwned(c.ID, ClientStream(c.ID), ClientClaimed{ClientID: c.NewID, UserID: c.UserID})
	d.Closes = append(d.Closes, ClientStream(c.ID), QuotaStream(c.ID))
	return d, nil
}

// claimed gives the anonymous client, or the reason why it cannot be claimed.
func (c ClaimClient) claimed(s States) (*Client, error) {
	old := s.client(c.ID)
	switch {
	case old.ClaimedAs != 0:
		return nil, refuseAt(CodeClientClaimed, "This client was claimed already.", "client_id")
	case !old.Live() || old.Kind != ClientAnonymous:
		return nil, refuseAt(CodeClientNotFound, "There is no such anonymous client.", "client_id")
	case old.Disabled:
		return nil, refuseAt(CodeClientDisabled, "The client is disabled.", "client_id")
	case !bytes.Equal(old.PublicKey, c.PublicKey):
		return nil, refuseAt(CodeClaimRefused, "The claim code does not prove this client.", "claim_code")
	}
	return old, nil
}

// moveMappings replaces the anonymous client in its mappings, and in the quota of every
// account that the mappings count against.
func (c ClaimClient) moveMappings(s States, d *Decision, quota *Quota) error {
	ids := s.quota(c.ID).mappingIDs()
	if err := s.needMappings(ids); err != nil {
		return err
	}
	for _, id := range ids {
		m := s.mapping(id)
		next := *m
		moved := c.move(m)
		next.apply(moved)
		d.addOwned(m.UserID, MappingStream(id), moved)
		d.exchange(m.claims(), next.claims())
		resources := m.resources()
		d.add(QuotaStream(c.ID), QuotaReturned{Resources: resources, ID: id})
		for _, account := range next.Accounts() {
			if _, held := s.quota(account).Mappings[id]; held {
				d.add(QuotaStream(account), QuotaMoved{ID: id, SourceClientID: next.SourceClientID, TargetClientID: next.TargetClientID, FurtherClientIDs: next.furtherClients()})
				continue
			}
			err := quota.takeNow(d, QuotaTaken{Resources: resources, ID: id,
				SourceClientID: next.SourceClientID, TargetClientID: next.TargetClientID, FurtherClientIDs: next.furtherClients(), PublicPorts: next.portsBeyondOne()})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func (c ClaimClient) move(m *Mapping) MappingMoved {
	moved := MappingMoved{SourceClientID: m.SourceClientID, TargetClientID: m.TargetClientID,
		SourceUserID: m.SourceUserID, TargetUserID: m.TargetUserID}
	other := c.UserID
	if other == m.UserID {
		other = 0
	}
	if m.SourceClientID == c.ID {
		moved.SourceClientID, moved.SourceUserID = c.NewID, other
	}
	if m.TargetClientID == c.ID {
		moved.TargetClientID, moved.TargetUserID = c.NewID, other
	}
	return moved
}
