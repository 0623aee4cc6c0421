package domain

// ClientCommand is a command that a client sends over its session. One of Create,
// Redeem, Delete and List is set. The control plane overwrites the fields that a
// client may not choose, such as new ids and the owner.
type ClientCommand struct {
	ClientID int64          `json:"client_id"`         // the client, proved by its session
	Key      string         `json:"key,omitempty"`     // idempotency key; a repeat has the same
	Source   string         `json:"source,omitempty"`  // the agent's address
	Request  string         `json:"request,omitempty"` // id of the session, for the log
	Create   *CreateMapping `json:"create,omitempty"`
	Redeem   *Redemption    `json:"redeem,omitempty"`
	Delete   *DeleteMapping `json:"delete,omitempty"`
	List     *MappingPage   `json:"list,omitempty"`
}

// Redemption makes a mapping of a share code, from the client that asks.
type Redemption struct {
	Code    string      `json:"code"`
	Mapping RedeemShare `json:"mapping"` // the fields of the new mapping
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
	Next      int64                `json:"next,omitempty"`      // of a list: the After of the next page, 0 = this is the last page
}
