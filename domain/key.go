package domain

import (
	"bytes"
	"slices"
	"time"
)

// Key is an API key, with which a program proves its identity.
//
// Rules: the log keeps a hash of the secret, never the secret. A key belongs to
// a user, or, with user 0, to the operator, who is an admin. A key never allows more
// than its owner may do now: when an admin is demoted, the keys of that user lose the
// rights of admins. A user holds at most [MaxKeys]. A revoked key is revoked for ever.
type Key struct {
	ID        int64     `json:"id"`
	UserID    int64     `json:"user_id,omitempty"` // 0 = the operator
	Name      string    `json:"name,omitempty"`
	Prefix    string    `json:"prefix"` // the visible beginning of the key
	Hash      []byte    `json:"hash"`   // SHA-256 of the whole key, which has 256 random bits: no slow hash is needed
	Scopes    []Scope   `json:"scopes"`
	ExpiresAt time.Time `json:"expires_at,omitzero"` // zero = never
	Revoked   bool      `json:"revoked,omitempty"`
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
}

// MaxKeys is how many keys a user may hold.
const MaxKeys = 100

// Events of a key.
type (
	// KeyCreated begins a key.
	KeyCreated struct {
		KeyID     int64     `json:"key_id"`
		UserID    int64     `json:"user_id,omitempty"`
		Name      string    `json:"name,omitempty"`
		Prefix    string    `json:"prefix"`
		Hash      []byte    `json:"hash"`
		Scopes    []Scope   `json:"scopes"`
		ExpiresAt time.Time `json:"expires_at,omitzero"`
	}
	// KeyRevoked ends a key.
	KeyRevoked struct{}
)

// EventName implements [Event].
func (KeyCreated) EventName() string { return "key_created" }

// EventName implements [Event].
func (KeyRevoked) EventName() string { return "key_revoked" }

// Exists implements [Aggregate].
func (k *Key) Exists() bool { return k.ID != 0 }

// Live reports whether the key exists and was not revoked; it may have expired.
func (k *Key) Live() bool { return k.Exists() && !k.Revoked }

// Expired reports whether the key has expired at a moment.
func (k *Key) Expired(at time.Time) bool { return !k.ExpiresAt.IsZero() && !at.Before(k.ExpiresAt) }

// Clone implements [Aggregate].
func (k *Key) Clone() Aggregate {
	c := *k
	c.Hash, c.Scopes = bytes.Clone(k.Hash), slices.Clone(k.Scopes)
	return &c
}

// Apply implements [Aggregate].
func (k *Key) Apply(event Event, at time.Time) {
	switch e := event.(type) {
	case KeyCreated:
		*k = Key{ID: e.KeyID, UserID: e.UserID, Name: e.Name, Prefix: e.Prefix, Hash: e.Hash, Scopes: e.Scopes,
			ExpiresAt: e.ExpiresAt, CreatedAt: at}
	case KeyRevoked:
		k.Revoked = true
	default:
		return
	}
	k.UpdatedAt = at
}

// CreateKey begins a key.
type CreateKey struct {
	ID        int64
	UserID    int64 // 0 = the operator's
	Name      string
	Prefix    string
	Hash      []byte
	Scopes    []Scope
	ExpiresAt time.Time // zero = never
	At        time.Time // now; a key does not begin expired
}

// CommandName implements [Command].
func (CreateKey) CommandName() string { return "create_key" }

// Subject implements [Command].
func (c CreateKey) Subject() StreamID { return KeyStream(c.ID) }

// Account implements [Command].
func (c CreateKey) Account() int64 { return c.UserID }

// Reads implements [Command].
func (c CreateKey) Reads() []StreamID {
	if c.UserID == 0 {
		return []StreamID{KeyStream(c.ID)}
	}
	return []StreamID{KeyStream(c.ID), UserStream(c.UserID), QuotaStream(c.UserID)}
}

// Decide implements [Command].
func (c CreateKey) Decide(s States) (Decision, error) {
	var f faults
	f.text("name", c.Name, 0, maxNameLength)
	f.text("prefix", c.Prefix, 1, maxNameLength)
	f.hash("hash", c.Hash)
	f.scopes("scopes", c.Scopes)
	if !c.ExpiresAt.IsZero() && !c.ExpiresAt.After(c.At) {
		f.add("expires_at", "must be in the future")
	}
	if err := f.err("The key cannot be created as asked."); err != nil {
		return Decision{}, err
	}
	if s.key(c.ID).Exists() {
		return Decision{}, refuse(CodeIDTaken, "This key id is in use.")
	}
	d := Decision{Account: c.UserID}
	d.add(KeyStream(c.ID), KeyCreated{KeyID: c.ID, UserID: c.UserID, Name: c.Name, Prefix: c.Prefix, Hash: c.Hash,
		Scopes: c.Scopes, ExpiresAt: c.ExpiresAt})
	if c.UserID == 0 {
		return d, nil
	}
	u, err := s.enabledUser(c.UserID)
	if err != nil {
		return Decision{}, err
	}
	if slices.Contains(c.Scopes, ScopeAdmin) && u.Role != RoleAdmin {
		return Decision{}, refuseAt(CodeScopeDenied, "A key may not do more than its owner, and the owner is not an admin.", "scopes")
	}
	return d, s.quota(c.UserID).take(&d, QuotaTaken{Resources: []Resource{ResourceKey}, ID: c.ID})
}

// RevokeKey ends a key.
type RevokeKey struct{ ID int64 }

// CommandName implements [Command].
func (RevokeKey) CommandName() string { return "revoke_key" }

// Subject implements [Command].
func (c RevokeKey) Subject() StreamID { return KeyStream(c.ID) }

// Account implements [Command].
func (RevokeKey) Account() int64 { return 0 }

// Reads implements [Command].
func (c RevokeKey) Reads() []StreamID { return []StreamID{KeyStream(c.ID)} }

// Decide implements [Command].
func (c RevokeKey) Decide(s States) (Decision, error) {
	k := s.key(c.ID)
	if !k.Live() {
		return Decision{}, refuse(CodeKeyNotFound, "There is no such key.")
	}
	d := Decision{Account: k.UserID}
	if k.UserID != 0 {
		if err := s.need(QuotaStream(k.UserID)); err != nil {
			return Decision{}, err
		}
	}
	endKey(&d, c.ID, k.UserID)
	return d, nil
}

func endKey(d *Decision, id, user int64) {
	d.add(KeyStream(id), KeyRevoked{})
	d.Closes = append(d.Closes, KeyStream(id))
	if user != 0 {
		d.add(QuotaStream(user), QuotaReturned{Resources: []Resource{ResourceKey}, ID: id})
	}
}

func (f *faults) hash(field string, hash []byte) {
	if len(hash) != hashLength {
		f.add(field, "must be a SHA-256")
	}
}
