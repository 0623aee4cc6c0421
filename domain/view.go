package domain

// Versioned is a state with the version of its event stream, so that a follower
// applies a record exactly when its version is the next one.
type Versioned[T any] struct {
	Version Version `json:"version"`
	State   T       `json:"state"`
}

// ClientView is everything that a forwarder needs to serve one client: the client, its
// mappings, and the users and limits of their accounts. Every part has its own version.
// All parts were read at Position or later, so a forwarder that follows the feed
// from Position, and applies each record whose version is the next one, has the present
// state.
type ClientView struct {
	Position Position                   `json:"position"`
	Client   Versioned[Client]          `json:"client"`
	Mappings []Versioned[Mapping]       `json:"mappings,omitempty"`
	Users    []Versioned[User]          `json:"users,omitempty"` // of the client and the mappings
	Limits   []Versioned[AccountLimits] `json:"limits,omitempty"`
}

// AccountLimits are an account's limits, with the account they belong to.
type AccountLimits struct {
	Account int64  `json:"account"`
	Limits  Limits `json:"limits"`
}
