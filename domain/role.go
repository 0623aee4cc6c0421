package domain

import (
	"fmt"
	"slices"
	"strings"
)

// Role bounds what a user may do.
type Role string

// The roles.
const (
	// RoleUser sees and changes only the user's own resources.
	RoleUser Role = "user"
	// RoleAdmin sees and changes everything.
	RoleAdmin Role = "admin"
)

// Scope is a part of what a role may do. A key has some scopes; a login with a password
// has all scopes of the role.
type Scope string

// The scopes. A scope to write does not hold the one to read.
const (
	ScopeRead          Scope = "read"
	ScopeUsersWrite    Scope = "users:write"
	ScopeClientsWrite  Scope = "clients:write"
	ScopeMappingsWrite Scope = "mappings:write"
	ScopeSharesWrite   Scope = "shares:write"
	ScopeKeysWrite     Scope = "keys:write"
	// ScopeWebhooksWrite lets a key send events to an address of its choice.
	ScopeWebhooksWrite Scope = "webhooks:write"
	// ScopeAdmin lets a key use the rights of its owner, an admin. Without it a key of
	// an admin reaches the admin's own resources only.
	ScopeAdmin Scope = "admin"
)

// Scopes lists the scopes that a key of a role may have, in a fixed order.
func (r Role) Scopes() []Scope {
	all := []Scope{ScopeRead, ScopeUsersWrite, ScopeClientsWrite, ScopeMappingsWrite, ScopeSharesWrite, ScopeKeysWrite, ScopeWebhooksWrite}
	if r == RoleAdmin {
		all = append(all, ScopeAdmin)
	}
	return all
}

func (f *faults) role(field string, r Role) {
	if r != RoleUser && r != RoleAdmin {
		f.add(field, "must be admin or user")
	}
}

func (f *faults) scopes(field string, scopes []Scope) {
	known := RoleAdmin.Scopes()
	if len(scopes) == 0 || len(scopes) > len(known) {
		f.add(field, fmt.Sprintf("must be 1 to %d scopes", len(known)))
	}
	for i, s := range scopes {
		if !slices.Contains(known, s) || slices.Contains(scopes[:i], s) {
			names := make([]string, len(known))
			for i, k := range known {
				names[i] = string(k)
			}
			f.add(field, "must be different ones of "+strings.Join(names, ", "))
			return
		}
	}
}
