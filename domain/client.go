package domain

import (
	"bytes"
	"cmp"
	"fmt"
	"time"
)

// ClientKind says how a client came to be.
type ClientKind string

// The kinds of clients.
const (
	// ClientManaged was created for a user over the API.
	ClientManaged ClientKind = "managed"
	// ClientAnonymous registered itself; it is its own account until claimed.
	ClientAnonymous ClientKind = "anonymous"
)

// Client is a registered identity. An agent is the running program that proves
// it is that client.
//
// Rules: a managed client belongs to one user and counts against its quota. An
// anonymous client belongs to nobody and is its own account. The log keeps the
// public half of a credential only. A deleted client takes the mappings it is
// part of along, and its id is never used again. Commands says whose agents may have
// connections led to it.
type Client struct {
	ID          int64      `json:"id"`
	Kind        ClientKind `json:"kind"`
	UserID      int64      `json:"user_id,omitempty"` // 0 for an anonymous client
	Name        string     `json:"name"`
	Description string     `json:"description,omitempty"`
	PublicKey   []byte     `json:"public_key"` // Ed25519, 32 bytes (RFC 8032)
	Commands    Commands   `json:"commands"`
	Disabled    bool       `json:"disabled,omitempty"`
	Deleted     bool       `json:"deleted,omitempty"`
	ClaimedAs   int64      `json:"claimed_as,omitempty"` // the id it goes on under, for ever
	CreatedAt   time.Time  `json:"created_at"`
	UpdatedAt   time.Time  `json:"updated_at"`

	// StaticKey is the public half of the key that the client's agent announced last, and
	// encrypts from end to end with: X25519, 32 bytes. KeyNumber counts these keys from 1.
	StaticKey []byte `json:"static_key,omitempty"`
	KeyNumber int64  `json:"key_number,omitempty"`
}

// Events of a client.
type (
	// ClientCreated begins a managed client.
	ClientCreated struct {
		ClientID    int64    `json:"client_id"`
		UserID      int64    `json:"user_id"`
		Name        string   `json:"name"`
		Description string   `json:"description,omitempty"`
		PublicKey   []byte   `json:"public_key"`
		Commands    Commands `json:"commands"` // since schema 2; all before
	}
	// ClientRegistered begins an anonymous client.
	ClientRegistered struct {
		ClientID  int64  `json:"client_id"`
		Name      string `json:"name,omitempty"`
		PublicKey []byte `json:"public_key"`
	}
	// ClientChanged gives the client's name and description from now on.
	ClientChanged struct {
		Name        string `json:"name"`
		Description string `json:"description,omitempty"`
	}
	// ClientCredentialRotated makes another key the only valid one.
	ClientCredentialRotated struct {
		PublicKey []byte `json:"public_key"`
	}
	// ClientKeyAnnounced gives the public half of the key with which the client's agent
	// encrypts from end to end. The one with the highest number counts. Agents read this
	// event with a proof that it is in the log (package logproof), so its fields keep
	// their names and meanings.
	ClientKeyAnnounced struct {
		StaticKey []byte `json:"static_key"`
		Number    int64  `json:"number"`
	}
	// ClientDisabled ends the client's sessions until ClientEnabled.
	ClientDisabled struct{}
	// ClientEnabled ends ClientDisabled.
	ClientEnabled struct{}
	// ClientDeleted ends the client.
	ClientDeleted struct{}
	// ClientDisconnectRequested asks for the end of the sessions that the client had.
	// It does not change the client, and the agent may connect again. The request is
	// carried out once, when it is made. Reading the event later has no effect: a
	// session that began after the request stays.
	ClientDisconnectRequested struct {
		Nodes []string `json:"nodes,omitempty"` // the nodes that held the sessions
		Epoch int64    `json:"epoch,omitempty"` // the epoch of the newest session to end
	}
)

// EventName implements [Event].
func (ClientCreated) EventName() string { return "client_created" }

// EventName implements [Event].
func (ClientRegistered) EventName() string { return "client_registered" }

// EventName implements [Event].
func (ClientChanged) EventName() string { return "client_changed" }

// EventName implements [Event].
func (ClientCredentialRotated) EventName() string { return "client_credential_rotated" }

// EventName implements [Event].
func (ClientKeyAnnounced) EventName() string { return "client_key_announced" }

// EventName implements [Event].
func (ClientDisabled) EventName() string { return "client_disabled" }

// EventName implements [Event].
func (ClientEnabled) EventName() string { return "client_enabled" }

// EventName implements [Event].
func (ClientDeleted) EventName() string { return "client_deleted" }

// EventName implements [Event].
func (ClientDisconnectRequested) EventName() string { return "client_disconnect_requested" }

// Exists implements [Aggregate].
func (c *Client) Exists() bool { return c.ID != 0 }

// Live reports whether the client exists and was neither deleted nor claimed.
func (c *Client) Live() bool { return c.Exists() && !c.Deleted && c.ClaimedAs == 0 }

// AccountID is the account whose quota the client counts against: its user, or
// the anonymous client itself.
func (c *Client) AccountID() int64 {
	if c.Kind == ClientAnonymous {
		return c.ID
	}
	return c.UserID
}

// Clone implements [Aggregate].
func (c *Client) Clone() Aggregate {
	cp := *c
	cp.PublicKey, cp.StaticKey = bytes.Clone(c.PublicKey), bytes.Clone(c.StaticKey)
	return &cp
}

// Apply implements [Aggregate].
func (c *Client) Apply(event Event, at time.Time) {
	switch e := event.(type) {
	case ClientCreated:
		*c = Client{ID: e.ClientID, Kind: ClientManaged, UserID: e.UserID, Name: e.Name,
			Description: e.Description, PublicKey: e.PublicKey, Commands: e.Commands, CreatedAt: at}
	case ClientRegistered:
		*c = Client{ID: e.ClientID, Kind: ClientAnonymous, Name: e.Name, PublicKey: e.PublicKey, Commands: CommandsOwn, CreatedAt: at}
	case ClientChanged:
		c.Name, c.Description = e.Name, e.Description
	case ClientCommandsSet:
		c.Commands = e.Commands
	case ClientCredentialRotated:
		c.PublicKey = e.PublicKey
	case ClientKeyAnnounced:
		c.StaticKey, c.KeyNumber = e.StaticKey, e.Number
	case ClientDisabled:
		c.Disabled = true
	case ClientEnabled:
		c.Disabled = false
	case ClientDeleted:
		c.Deleted = true
	case ClientClaimed:
		c.ClaimedAs = e.ClientID
	default:
		return
	}
	c.UpdatedAt = at
}

// CreateClient begins a managed client of a user.
type CreateClient struct {
	ID          int64
	UserID      int64
	Name        string
	Description string
	PublicKey   []byte
	Commands    Commands // "" = own
}

// CommandName implements [Command].
func (CreateClient) CommandName() string { return "create_client" }

// Subject implements [Command].
func (c CreateClient) Subject() StreamID { return ClientStream(c.ID) }

// Account implements [Command].
func (c CreateClient) Account() int64 { return c.UserID }

// Reads implements [Command].
func (c CreateClient) Reads() []StreamID {
	return []StreamID{ClientStream(c.ID), UserStream(c.UserID), QuotaStream(c.UserID)}
}

// Decide implements [Command].
func (c CreateClient) Decide(s States) (Decision, error) {
	var f faults
	f.registeredID("client_id", c.ID)
	f.text("client_name", c.Name, 1, maxNameLength)
	f.text("client_desc", c.Description, 0, maxDescriptionLength)
	f.publicKey(c.PublicKey)
	c.Commands = cmp.Or(c.Commands, CommandsOwn)
	f.commands(c.Commands)
	if err := f.err("The client cannot be created as asked."); err != nil {
		return Decision{}, err
	}
	if _, err := s.enabledUser(c.UserID); err != nil {
		return Decision{}, err
	}
	if s.client(c.ID).Exists() {
		return Decision{}, refuse(CodeIDTaken, "This client id is in use.")
	}
	d := Decision{Account: c.UserID}
	d.add(ClientStream(c.ID), ClientCreated{ClientID: c.ID, UserID: c.UserID, Name: c.Name,
		Description: c.Description, PublicKey: c.PublicKey, Commands: c.Commands})
	return d, s.quota(c.UserID).take(&d, QuotaTaken{Resources: []Resource{ResourceClient}, ID: c.ID})
}

// RegisterClient begins an anonymous client with the quota it starts from.
type RegisterClient struct {
	ID        int64 // drawn from the anonymous range
	Name      string
	PublicKey []byte
	Limits    Limits
}

// CommandName implements [Command].
func (RegisterClient) CommandName() string { return "register_client" }

// Subject implements [Command].
func (c RegisterClient) Subject() StreamID { return ClientStream(c.ID) }

// Account implements [Command].
func (c RegisterClient) Account() int64 { return c.ID }

// Reads implements [Command].
func (c RegisterClient) Reads() []StreamID { return []StreamID{ClientStream(c.ID), QuotaStream(c.ID)} }

// Decide implements [Command].
func (c RegisterClient) Decide(s States) (Decision, error) {
	var f faults
	if !IsAnonymous(c.ID) {
		f.add("client_id", "must be in the anonymous range")
	}
	f.text("client_name", c.Name, 0, maxNameLength)
	f.publicKey(c.PublicKey)
	f.limits(c.Limits)
	if err := f.err("The client cannot register as asked."); err != nil {
		return Decision{}, err
	}
	if s.client(c.ID).Exists() {
		return Decision{}, refuse(CodeIDTaken, "This client id is in use.")
	}
	d := Decision{Account: c.ID}
	d.add(ClientStream(c.ID), ClientRegistered{ClientID: c.ID, Name: c.Name, PublicKey: c.PublicKey})
	d.add(QuotaStream(c.ID), QuotaSet{Account: c.ID, Limits: c.Limits})
	return d, nil
}

// ChangeClient gives a client another name or description, or says whose agents may have
// connections led to it; nil keeps the present one. It is for users: no agent has a
// command that changes a client.
type ChangeClient struct {
	ID          int64
	Name        *string
	Description *string
	Commands    *Commands
	UserID      *int64 // never changes here; any other value is a fault
}

// CommandName implements [Command].
func (ChangeClient) CommandName() string { return "change_client" }

// Subject implements [Command].
func (c ChangeClient) Subject() StreamID { return ClientStream(c.ID) }

// Account implements [Command].
func (ChangeClient) Account() int64 { return 0 }

// Reads implements [Command].
func (c ChangeClient) Reads() []StreamID { return []StreamID{ClientStream(c.ID)} }

// Decide implements [Command].
func (c ChangeClient) Decide(s States) (Decision, error) {
	cl, err := s.liveClient(c.ID)
	if err != nil {
		return Decision{}, err
	}
	name, desc := cl.Name, cl.Description
	var f faults
	fixed(&f, "user_id", c.UserID, cl.UserID)
	if c.Name != nil {
		name = *c.Name
		f.text("client_name", name, 1, maxNameLength)
	}
	if c.Description != nil {
		desc = *c.Description
		f.text("client_desc", desc, 0, maxDescriptionLength)
	}
	if c.Commands != nil {
		f.commands(*c.Commands)
	}
	if err := f.err("The client cannot be changed as asked."); err != nil {
		return Decision{}, err
	}
	d := Decision{Account: cl.AccountID()}
	if name != cl.Name || desc != cl.Description {
		d.add(ClientStream(c.ID), ClientChanged{Name: name, Description: desc})
	}
	if c.Commands != nil && *c.Commands != cl.Commands {
		d.add(ClientStream(c.ID), ClientCommandsSet{Commands: *c.Commands})
	}
	return d, nil
}

// RotateCredential replaces the key with which the client proves its identity.
type RotateCredential struct {
	ID        int64
	PublicKey []byte
}

// CommandName implements [Command].
func (RotateCredential) CommandName() string { return "rotate_credential" }

// Subject implements [Command].
func (c RotateCredential) Subject() StreamID { return ClientStream(c.ID) }

// Account implements [Command].
func (RotateCredential) Account() int64 { return 0 }

// Reads implements [Command].
func (c RotateCredential) Reads() []StreamID { return []StreamID{ClientStream(c.ID)} }

// Decide implements [Command].
func (c RotateCredential) Decide(s States) (Decision, error) {
	var f faults
	f.publicKey(c.PublicKey)
	if err := f.err("The credential cannot be rotated as asked."); err != nil {
		return Decision{}, err
	}
	cl, err := s.liveClient(c.ID)
	if err != nil {
		return Decision{}, err
	}
	d := Decision{Account: cl.AccountID()}
	if !bytes.Equal(c.PublicKey, cl.PublicKey) {
		d.add(ClientStream(c.ID), ClientCredentialRotated{PublicKey: c.PublicKey})
	}
	return d, nil
}

// AnnounceKey makes a key the one with which the client's agent encrypts from end to end.
// The agent itself asks for it, over its session. It succeeds, and changes nothing, when
// the key is the present one.
type AnnounceKey struct {
	ID        int64  `json:"id"`
	StaticKey []byte `json:"static_key"`
}

// CommandName implements [Command].
func (AnnounceKey) CommandName() string { return "announce_key" }

// Subject implements [Command].
func (c AnnounceKey) Subject() StreamID { return ClientStream(c.ID) }

// Account implements [Command].
func (AnnounceKey) Account() int64 { return 0 }

// Reads implements [Command].
func (c AnnounceKey) Reads() []StreamID { return []StreamID{ClientStream(c.ID)} }

// Decide implements [Command].
func (c AnnounceKey) Decide(s States) (Decision, error) {
	var f faults
	if len(c.StaticKey) != staticKeyLength {
		f.add("static_key", fmt.Sprintf("must have %d bytes, has %d", staticKeyLength, len(c.StaticKey)))
	}
	if err := f.err("The key cannot be announced as asked."); err != nil {
		return Decision{}, err
	}
	cl, err := s.liveClient(c.ID)
	if err != nil {
		return Decision{}, err
	}
	d := Decision{Account: cl.AccountID()}
	if !bytes.Equal(c.StaticKey, cl.StaticKey) {
		d.add(ClientStream(c.ID), ClientKeyAnnounced{StaticKey: c.StaticKey, Number: cl.KeyNumber + 1})
	}
	return d, nil
}

// staticKeyLength is the length of an X25519 key, in bytes.
const staticKeyLength = 32

// SetClientEnabled enables or disables a client. It succeeds, and changes nothing, when
// the client is in that state.
type SetClientEnabled struct {
	ID      int64
	Enabled bool
}

// CommandName implements [Command].
func (c SetClientEnabled) CommandName() string { return enableName("client", c.Enabled) }

// Subject implements [Command].
func (c SetClientEnabled) Subject() StreamID { return ClientStream(c.ID) }

// Account implements [Command].
func (SetClientEnabled) Account() int64 { return 0 }

// Reads implements [Command].
func (c SetClientEnabled) Reads() []StreamID { return []StreamID{ClientStream(c.ID)} }

// Decide implements [Command].
func (c SetClientEnabled) Decide(s States) (Decision, error) {
	cl, err := s.liveClient(c.ID)
	if err != nil {
		return Decision{}, err
	}
	d := Decision{Account: cl.AccountID()}
	switch {
	case c.Enabled && cl.Disabled:
		d.add(ClientStream(c.ID), ClientEnabled{})
	case !c.Enabled && !cl.Disabled:
		d.add(ClientStream(c.ID), ClientDisabled{})
	}
	return d, nil
}

// DisconnectClient asks for the end of a client's sessions. A repeat is a request of
// its own, because the client may have other sessions by then.
type DisconnectClient struct {
	ID    int64
	Nodes []string // the nodes that hold its sessions now, from the directory
	Epoch int64    // the epoch of the newest session, 0 = there is none
}

// CommandName implements [Command].
func (DisconnectClient) CommandName() string { return "disconnect_client" }

// Subject implements [Command].
func (c DisconnectClient) Subject() StreamID { return ClientStream(c.ID) }

// Account implements [Command].
func (DisconnectClient) Account() int64 { return 0 }

// Reads implements [Command].
func (c DisconnectClient) Reads() []StreamID { return []StreamID{ClientStream(c.ID)} }

// Decide implements [Command].
func (c DisconnectClient) Decide(s States) (Decision, error) {
	cl, err := s.liveClient(c.ID)
	if err != nil {
		return Decision{}, err
	}
	d := Decision{Account: cl.AccountID()}
	d.add(ClientStream(c.ID), ClientDisconnectRequested{Nodes: c.Nodes, Epoch: c.Epoch})
	return d, nil
}

// DeleteClient ends a client, every mapping it is part of and every share that
// leads to it.
type DeleteClient struct{ ID int64 }

// CommandName implements [Command].
func (DeleteClient) CommandName() string { return "delete_client" }

// Subject implements [Command].
func (c DeleteClient) Subject() StreamID { return ClientStream(c.ID) }

// Account implements [Command].
func (DeleteClient) Account() int64 { return 0 }

// Reads implements [Command].
func (c DeleteClient) Reads() []StreamID { return []StreamID{ClientStream(c.ID)} }

// Decide implements [Command].
func (c DeleteClient) Decide(s States) (Decision, error) {
	cl, err := s.liveClient(c.ID)
	if err != nil {
		return Decision{}, err
	}
	account := cl.AccountID()
	if err := s.need(QuotaStream(account)); err != nil {
		return Decision{}, err
	}
	d := Decision{Account: account}
	if err := endOfClient(s, &d, account, c.ID); err != nil {
		return Decision{}, err
	}
	if cl.Kind == ClientAnonymous {
		endClient(&d, c.ID)
		d.Closes = append(d.Closes, QuotaStream(account))
		return d, nil
	}
	endManagedClient(&d, c.ID, account)
	return d, nil
}

func endClient(d *Decision, id int64) {
	d.add(ClientStream(id), ClientDeleted{})
	d.Closes = append(d.Closes, ClientStream(id))
}

func endManagedClient(d *Decision, id, user int64) {
	endClient(d, id)
	d.add(QuotaStream(user), QuotaReturned{Resources: []Resource{ResourceClient}, ID: id})
}

// liveClient gives the client, or the refusal when there is none.
func (s States) liveClient(id int64) (*Client, error) {
	if err := s.need(ClientStream(id)); err != nil {
		return nil, err
	}
	c := s.client(id)
	if !c.Live() {
		return nil, refuse(CodeClientNotFound, "There is no such client.")
	}
	return c, nil
}
