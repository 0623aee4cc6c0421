package domain

import (
	"fmt"
	"slices"
	"strings"
)

// Role is what a user may do at most.
type Role string

// The roles.
const (
	// RoleUser sees and changes what is its own.
	RoleUser Role = "user"
	// RoleAdmin sees and changes everything.
	RoleAdmin Role = "admin"
)

// Scope is a part of what a role may do. A key has some of them; who logs in
// with a password has all that the role has.
type Scope string

// The scopes. A scope to write does not hold the one to read.
const (
	ScopeRead          Scope = "read"
	ScopeUsersWrite    Scope = "users:write"
	ScopeClientsWrite  Scope = "clients:write"
	ScopeMappingsWrite Scope = "mappings:write"
	ScopeSharesWrite   Scope = "shares:write"
	ScopeKeysWrite     Scope = "keys:write"
	// ScopeWebhooksWrite lets a key have what happens sent somewhere.
	ScopeWebhooksWrite Scope = "webhooks:write"
	// ScopeAdmin lets a key act as the admin its owner is. Without it a key of an
	// admin reaches what is the admin's own.
	ScopeAdmin Scope = "admin"
)

// Scopes lists those that a key of a role may have, in a fixed order.
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
