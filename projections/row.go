package projections

import (
	"time"

	"github.com/tunnox-net/tunnox/domain"
)

// Schema is the number of the rows' shape. Raise it with every change of a row
// or an index: a store keeps each schema's rows apart, so a new program builds
// its own beside those an old one still reads.
const Schema = 6

// Versions tells where a row stands: the version of its event stream and the
// position of the last record folded into it.
type Versions struct {
	Version  domain.Version  `json:"version"`
	Position domain.Position `json:"position"`
}

// UserRow is the read model of a user.
type UserRow struct {
	Versions
	domain.User
	HasPassword bool `json:"has_password,omitempty"`
}

// ClientRow is the read model of a client.
type ClientRow struct {
	Versions
	domain.Client
}

// MappingRow is the read model of a mapping.
type MappingRow struct {
	Versions
	domain.Mapping
}

// QuotaRow is the read model of an account's quota: the limits and how much of
// them is in use. It does not list what is held, so that its size is bounded.
type QuotaRow struct {
	Versions
	Account        int64         `json:"account"`
	Limits         domain.Limits `json:"limits"`
	Clients        int64         `json:"clients"`
	Mappings       int64         `json:"mappings"`
	ActiveMappings int64         `json:"active_mappings"`
	UpdatedAt      time.Time     `json:"updated_at"`
}
