package domain

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"maps"
	"time"
)

// Invite is an invitation. With its code a machine becomes a client of the inviting
// user, without an account, an id or a file.
//
// Rules: the log keeps a hash of the secret. An invitation is good for a number of
// uses, and until it expires or is revoked. Its clients count against the user's quota
// like others and stay when the invitation ends. A key that has redeemed the
// invitation gets the same client again, also when no uses are left: the first answer
// may have been lost.
type Invite struct {
	ID        int64            `json:"id"`
	UserID    int64            `json:"user_id"`
	Name      string           `json:"name,omitempty"`
	Hash      []byte           `json:"hash"`
	MaxUses   int64            `json:"max_uses"`
	Redeemed  map[string]int64 `json:"redeemed,omitempty"` // the client, by the hash of its first key
	ExpiresAt time.Time        `json:"expires_at,omitzero"`
	Revoked   bool             `json:"revoked,omitempty"`
	CreatedAt time.Time        `json:"created_at"`
	UpdatedAt time.Time        `json:"updated_at"`
}

const (
	// MaxInvites is how many live invitations a user may hold.
	MaxInvites = 1000
	// MaxInviteUses is the highest number of uses of an invitation. It is bounded because
	// the state of an invitation lists its uses.
	MaxInviteUses = 1000
	// InviteSecretLength is how many random bytes a code has, so that nobody guesses one.
	InviteSecretLength = 16
)

// Events of an invitation.
type (
	// InviteCreated begins an invitation.
	InviteCreated struct {
		InviteID  int64     `json:"invite_id"`
		UserID    int64     `json:"user_id"`
		Name      string    `json:"name,omitempty"`
		Hash      []byte    `json:"hash"`
		MaxUses   int64     `json:"max_uses"`
		ExpiresAt time.Time `json:"expires_at,omitzero"`
	}
	// InviteRedeemed counts a use: a client was made.
	InviteRedeemed struct {
		ClientID  int64  `json:"client_id"`
		PublicKey []byte `json:"public_key"`
	}
	// InviteRevoked ends an invitation before its time.
	InviteRevoked struct{}
)

// EventName implements [Event].
func (InviteCreated) EventName() string { return "invite_created" }

// EventName implements [Event].
func (InviteRedeemed) EventName() string { return "invite_redeemed" }

// EventName implements [Event].
func (InviteRevoked) EventName() string { return "invite_revoked" }

// Exists implements [Aggregate].
func (i *Invite) Exists() bool { return i.ID != 0 }

// Uses is how often the invitation was used.
func (i *Invite) Uses() int64 { return int64(len(i.Redeemed)) }

// Live reports whether the invitation has uses left and was not revoked; it may have
// expired.
func (i *Invite) Live() bool { return i.Exists() && !i.Revoked && i.Uses() < i.MaxUses }

// Expired reports whether the invitation's time is over at a moment.
func (i *Invite) Expired(at time.Time) bool { return !i.ExpiresAt.IsZero() && !at.Before(i.ExpiresAt) }

// ClientOf gives the client that a public key got from the invitation, 0 for none.
func (i *Invite) ClientOf(publicKey []byte) int64 { return i.Redeemed[keyName(publicKey)] }

func keyName(publicKey []byte) string {
	sum := sha256.Sum256(publicKey)
	return hex.EncodeToString(sum[:16])
}

// Clone implements [Aggregate].
func (i *Invite) Clone() Aggregate {
	c := *i
	c.Hash, c.Redeemed = bytes.Clone(i.Hash), maps.Clone(i.Redeemed)
	return &c
}

// Apply implements [Aggregate].
func (i *Invite) Apply(event Event, at time.Time) {
	switch e := event.(type) {
	case InviteCreated:
		*i = Invite{ID: e.InviteID, UserID: e.UserID, Name: e.Name, Hash: e.Hash, MaxUses: e.MaxUses, ExpiresAt: e.ExpiresAt, CreatedAt: at}
	case InviteRedeemed:
		if i.Redeemed == nil {
			i.Redeemed = map[string]int64{}
		}
		i.Redeemed[keyName(e.PublicKey)] = e.ClientID
	case InviteRevoked:
		i.Revoked = true
	default:
		return
	}
	i.UpdatedAt = at
}

// HashInvite is what the log keeps of an invitation's secret.
func HashInvite(id int64, secret []byte) []byte {
	h := sha256.New()
	h.Write([]byte("tunnox invitation\x00"))
	h.Write(binary.BigEndian.AppendUint64(nil, uint64(id)))
	h.Write(secret)
	return h.Sum(nil)
}

// CreateInvite begins an invitation.
type CreateInvite struct {
	ID        int64
	UserID    int64
	Name      string
	Hash      []byte
	MaxUses   int64
	ExpiresAt time.Time // zero = never
	At        time.Time // now; an invitation does not begin expired
}

// CommandName implements [Command].
func (CreateInvite) CommandName() string { return "create_invite" }

// Subject implements [Command].
func (c CreateInvite) Subject() StreamID { return InviteStream(c.ID) }

// Account implements [Command].
func (c CreateInvite) Account() int64 { return c.UserID }

// Reads implements [Command].
func (c CreateInvite) Reads() []StreamID {
	return []StreamID{InviteStream(c.ID), UserStream(c.UserID), QuotaStream(c.UserID)}
}

// Decide implements [Command].
func (c CreateInvite) Decide(s States) (Decision, error) {
	var f faults
	f.text("name", c.Name, 0, maxNameLength)
	f.hash("hash", c.Hash)
	if c.MaxUses < 1 || c.MaxUses > MaxInviteUses {
		f.add("uses", fmt.Sprintf("must be 1 to %d, is %d", MaxInviteUses, c.MaxUses))
	}
	if !c.ExpiresAt.IsZero() && !c.ExpiresAt.After(c.At) {
		f.add("expires_in", "must end in the future")
	}
	if err := f.err("The invitation cannot be made as asked."); err != nil {
		return Decision{}, err
	}
	if _, err := s.enabledUser(c.UserID); err != nil {
		return Decision{}, err
	}
	if s.invite(c.ID).Exists() {
		return Decision{}, refuse(CodeIDTaken, "This invitation's id is in use.")
	}
	d := Decision{Account: c.UserID}
	d.add(InviteStream(c.ID), InviteCreated{InviteID: c.ID, UserID: c.UserID, Name: c.Name, Hash: c.Hash, MaxUses: c.MaxUses, ExpiresAt: c.ExpiresAt})
	return d, s.quota(c.UserID).take(&d, QuotaTaken{Resources: []Resource{ResourceInvite}, ID: c.ID})
}

// RevokeInvite ends an invitation before its time.
type RevokeInvite struct{ ID int64 }

// CommandName implements [Command].
func (RevokeInvite) CommandName() string { return "revoke_invite" }

// Subject implements [Command].
func (c RevokeInvite) Subject() StreamID { return InviteStream(c.ID) }

// Account implements [Command].
func (RevokeInvite) Account() int64 { return 0 }

// Reads implements [Command].
func (c RevokeInvite) Reads() []StreamID { return []StreamID{InviteStream(c.ID)} }

// Decide implements [Command].
func (c RevokeInvite) Decide(s States) (Decision, error) {
	i := s.invite(c.ID)
	if !i.Live() {
		return Decision{}, refuse(CodeInviteNotFound, "There is no such invitation.")
	}
	if err := s.need(QuotaStream(i.UserID)); err != nil {
		return Decision{}, err
	}
	d := Decision{Account: i.UserID}
	endInvite(&d, c.ID, i.UserID)
	return d, nil
}

func endInvite(d *Decision, id, user int64) {
	d.add(InviteStream(id), InviteRevoked{})
	d.Closes = append(d.Closes, InviteStream(id))
	d.add(QuotaStream(user), QuotaReturned{Resources: []Resource{ResourceInvite}, ID: id})
}

// RedeemInvite makes a client of the inviting user. The caller has the secret of the
// invitation and has proved to hold the private key.
type RedeemInvite struct {
	ID        int64 // of the invitation
	Hash      []byte
	ClientID  int64 // of the new client
	Name      string
	PublicKey []byte
	Commands  Commands  // of the new client; "" = those that a client begins with
	At        time.Time // now
}

// CommandName implements [Command].
func (RedeemInvite) CommandName() string { return "redeem_invite" }

// Subject implements [Command].
func (c RedeemInvite) Subject() StreamID { return InviteStream(c.ID) }

// Account implements [Command].
func (RedeemInvite) Account() int64 { return 0 }

// Reads implements [Command].
func (c RedeemInvite) Reads() []StreamID {
	return []StreamID{InviteStream(c.ID), ClientStream(c.ClientID)}
}

// Decide implements [Command].
func (c RedeemInvite) Decide(s States) (Decision, error) {
	i := s.invite(c.ID)
	// A caller without the secret must not learn whether the invitation exists.
	if !i.Exists() || subtle.ConstantTimeCompare(i.Hash, c.Hash) == 0 {
		return Decision{}, refuseAt(CodeInviteNotFound, "There is no invitation with this code.", "code")
	}
	if i.ClientOf(c.PublicKey) != 0 {
		return Decision{Account: i.UserID}, nil // a repeat, because the first answer was lost
	}
	if !i.Live() || i.Expired(c.At) {
		return Decision{}, refuseAt(CodeInviteEnded, "This invitation was used up, was revoked or has expired.", "code")
	}
	if err := s.need(UserStream(i.UserID), QuotaStream(i.UserID)); err != nil {
		return Decision{}, err
	}
	made := CreateClient{ID: c.ClientID, UserID: i.UserID, Name: c.Name, PublicKey: c.PublicKey, Commands: c.Commands}
	if made.Name == "" {
		made.Name = i.Name
	}
	if made.Name == "" {
		made.Name = "joined"
	}
	d, err := made.Decide(s)
	if err != nil {
		return Decision{}, err
	}
	d.add(InviteStream(c.ID), InviteRedeemed{ClientID: c.ClientID, PublicKey: c.PublicKey})
	if i.Uses()+1 == i.MaxUses {
		d.Closes = append(d.Closes, InviteStream(c.ID))
		d.add(QuotaStream(i.UserID), QuotaReturned{Resources: []Resource{ResourceInvite}, ID: c.ID})
	}
	return d, nil
}
