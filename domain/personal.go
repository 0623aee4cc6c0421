package domain

import "time"

// What is about a person is kept so that it can be forgotten: a store seals
// these fields under a key of the account their record belongs to, and an
// account that is erased has no key any more. The log stays as it is, and so do
// its proofs.

// Erased stands where something was that has been erased.
const Erased = "[erased]"

// UserErased says that what was about the person of a user is forgotten. It is the
// one event of an erasure's stream: the user's has ended, and is followed no
// further by whoever has dropped the user. (At first it was the user's last event;
// such logs are still read.)
type UserErased struct{}

// EventName implements [Event].
func (UserErased) EventName() string { return "user_erased" }

// Erasure is what has been told of the erasure of a user.
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

// EraseUser deletes a user with all of its clients and mappings, and forgets
// what was about the person. A user who was deleted before can be erased still;
// to erase one again changes nothing.
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
