package domain

import "time"

// Personal data can be erased although the log never changes: a store seals these
// fields with a key of the account that the record belongs to, and an erased account
// has no key. The proofs of the log stay valid.

// What is personal stands in the table of kinds ([Kind]), for every field of an event and
// of a row, and in the two lists below. test/erasure sees that nothing else is kept.

// Erased stands in place of erased data. null stands in place of an erased object.
const Erased = "[erased]"

// PersonalClaims are the scopes of claims whose values tell something about a person:
// names, and where somebody listens. The store has them readable, so that they are
// unique, until their owner ends. An export without data keys leaves them out.
var PersonalClaims = []string{ClaimUsername, ClaimEmail, ClaimListener}

// PersonalAttributes are names of values that no log of a server has: a log cannot be
// erased with a user. Logs name users, clients and mappings by their ids, and networks in
// place of addresses.
var PersonalAttributes = []string{"username", "email", "url", "service", "target_host", "local_host", "public_host", "description", "remote", "visitor"}

// UserErased notes that the personal data of a user are erased. It is the only event of
// the erasure's own stream, because followers that have dropped a deleted user do not
// read the stream of the user any more. (In the oldest logs it is the last event of the
// user's stream; such logs are still read.)
type UserErased struct{}

// EventName implements [Event].
func (UserErased) EventName() string { return "user_erased" }

// Erasure is the state of the erasure of a user.
type Erasure struct {
	At time.Time `json:"at"`
}

// Exists implements [Aggregate].
func (e *Erasure) Exists() bool { return !e.At.IsZero() }

// Clone implements [Aggregate].
func (e *Erasure) Clone() Aggregate { c := *e; return &c }

// Apply implements [Aggregate].
func (e *Erasure) Apply(event Event, at time.Time) {
	if _, ok := event.(UserErased); ok {
		e.At = at
	}
}

// EraseUser deletes a user with all clients and mappings, and erases the personal data.
// A user who was deleted before can still be erased. A repeat changes nothing.
type EraseUser struct{ ID int64 }

// CommandName implements [Command].
func (EraseUser) CommandName() string { return "erase_user" }

// Subject implements [Command].
func (c EraseUser) Subject() StreamID { return UserStream(c.ID) }

// Account implements [Command].
func (c EraseUser) Account() int64 { return c.ID }

// Reads implements [Command].
func (c EraseUser) Reads() []StreamID { return append(DeleteUser(c).Reads(), ErasureStream(c.ID)) }

// Decide implements [Command].
func (c EraseUser) Decide(s States) (Decision, error) {
	u, d := s.user(c.ID), Decision{Account: c.ID}
	if !u.Deleted {
		var err error
		if d, err = DeleteUser(c).Decide(s); err != nil {
			return d, err
		}
	}
	if !u.Erased && !s.erasure(c.ID).Exists() {
		d.add(ErasureStream(c.ID), UserErased{})
		d.Closes = append(d.Closes, ErasureStream(c.ID))
	}
	return d, nil
}
