package domain

// Versioned is a state with the version of its event stream, so that a follower
// applies a record exactly when its version is the next one.
type Versioned[T any] struct {
	Version Version `json:"version"`
	State   T       `json:"state"`
}

// ClientView is all a forwarder must know of one client to serve it: the client,
// the mappings it is source or target of, and the users and limits of their
// accounts. Every part carries its own version; Position is one at which, or
// before which, all parts were read. Following the feed from Position and
// applying each record whose version is the next one gives the present.
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
