package domain

// ClientCommand is a command that a client sends over its session. One of Create to
// Prove is set. The control plane overwrites the fields that a client may not
// choose, such as new ids and the owner.
type ClientCommand struct {
	ClientID int64          `json:"client_id"`         // the client, proved by its session
	Key      string         `json:"key,omitempty"`     // idempotency key; a repeat has the same
	Source   string         `json:"source,omitempty"`  // the agent's address
	Request  string         `json:"request,omitempty"` // id of the session, for the log
	Create   *CreateMapping `json:"create,omitempty"`
	Redeem   *Redemption    `json:"redeem,omitempty"`
	Delete   *DeleteMapping `json:"delete,omitempty"`
	List     *MappingPage   `json:"list,omitempty"`
	Share    *Sharing       `json:"share,omitempty"`
	Revoke   *RevokeShare   `json:"revoke,omitempty"`
	Clients  *ClientPage    `json:"clients,omitempty"`
	Announce *AnnounceKey   `json:"announce,omitempty"`
	Prove    *KeyQuestion   `json:"prove,omitempty"`
}

// KeyQuestion asks for clients' static keys, with proofs that the log has them.
type KeyQuestion struct {
	Keys  []KeyOf `json:"keys,omitempty"`
	Known int64   `json:"known,omitempty"` // records of the log that the agent knows; 0 = none
	Seen  int64   `json:"seen,omitempty"`  // records of the log that a peer has seen; 0 = no question
}

// KeyOf names the client at the other end of a mapping, or with mapping 0 the client that
// asks.
type KeyOf struct {
	MappingID int64 `json:"mapping_id,omitempty"`
	ClientID  int64 `json:"client_id"`
}

// KeyProofs answers a KeyQuestion. Lists of hashes are their bytes, 32 each. What they
// mean, package logproof says; it is not for who carries them.
type KeyProofs struct {
	Signer     string     `json:"signer"`
	Checkpoint string     `json:"checkpoint"`
	Grown      []byte     `json:"grown,omitempty"`   // from Known to the checkpoint
	Between    []byte     `json:"between,omitempty"` // from the smaller of Known and Seen to the larger
	Keys       []KeyProof `json:"keys,omitempty"`    // of those clients that have one
}

// KeyProof proves a client's newest key.
type KeyProof struct {
	ClientID int64    `json:"client_id"`
	Number   int64    `json:"number"`
	Position Position `json:"position"`
	Record   []byte   `json:"record"` // the content of the leaf
	Path     []byte   `json:"path"`
}

// Sharing shares a service behind the client that asks.
type Sharing struct {
	Share   CreateShare `json:"share"`   // how it is to be
	Random  string      `json:"random"`  // of the code, drawn by the agent
	Seconds int64       `json:"seconds"` // how long it is good; 0 = for ever
}

// ClientPage is a part of the list of the clients of the asking client's user: up to
// Limit with an id above After.
type ClientPage struct {
	Name  string `json:"name,omitempty"` // "" = all; otherwise those with this name
	After int64  `json:"after,omitempty"`
	Limit int    `json:"limit,omitempty"` // 0 = 100
}

// Redemption makes a mapping of a share code, from the client that asks.
type Redemption struct {
	Code    string      `json:"code"`
	Mapping RedeemShare `json:"mapping"`        // the fields of the new mapping; Held is the client's to say
	Look    bool        `json:"look,omitempty"` // make nothing, and tell what the share leads to
}

// MappingPage is a part of a list: up to Limit mappings with an id above After.
type MappingPage struct {
	After int64 `json:"after,omitempty"`
	Limit int   `json:"limit,omitempty"` // 0 = 100
}

// ClientResult is the result of a client's command.
type ClientResult struct {
	Position  Position             `json:"position"`            // from which the read models show it
	Duplicate bool                 `json:"duplicate,omitempty"` // the key had been used: nothing was done now
	Mappings  []Versioned[Mapping] `json:"mappings,omitempty"`  // created, deleted or listed
	Public    []string             `json:"public,omitempty"`    // of each of Mappings: where visitors connect; "" = nowhere, or not known
	Share     *Share               `json:"share,omitempty"`     // created, without its hash
	Code      string               `json:"code,omitempty"`      // of Share
	Clients   []Client             `json:"clients,omitempty"`   // listed, without their keys
	Proofs    *KeyProofs           `json:"proofs,omitempty"`    // of keys
	Next      int64                `json:"next,omitempty"`      // of a list: the After of the next page, 0 = this is the last page
}
