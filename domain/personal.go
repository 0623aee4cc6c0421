package domain

// What is about a person is kept so that it can be forgotten: a store seals
// these fields under a key of the account their record belongs to, and an
// account that is erased has no key any more. The log stays as it is, and so do
// its proofs.

// Erased stands where something was that has been erased.
const Erased = "[erased]"

// personal are the fields that hold something about a person, by the event's
// name. They are strings.
var personal = map[string][]string{
	UserCreated{}.EventName():      {"username", "email"},
	UserChanged{}.EventName():      {"username", "email"},
	UserPasswordSet{}.EventName():  {"hash"},
	ClientCreated{}.EventName():    {"name", "description"},
	ClientRegistered{}.EventName(): {"name"},
	ClientChanged{}.EventName():    {"name", "description"},
	KeyCreated{}.EventName():       {"name"},
	ShareCreated{}.EventName():     {"name"},
}

// PersonalFields gives the fields of an event that are about a person.
func PersonalFields(event string) []string { return personal[event] }

// UserErased says that what was about the person of a user is forgotten. It is
// the last event of its stream.
type UserErased struct{}

// EventName implements [Event].
func (UserErased) EventName() string { return "user_erased" }

// EraseUser deletes a user with all of its clients and mappings, and forgets
// what was about the person.
type EraseUser struct{ ID int64 }

// CommandName implements [Command].
func (EraseUser) CommandName() string { return "erase_user" }

// Subject implements [Command].
func (c EraseUser) Subject() StreamID { return UserStream(c.ID) }

// Account implements [Command].
func (c EraseUser) Account() int64 { return c.ID }

// Reads implements [Command].
func (c EraseUser) Reads() []StreamID { return DeleteUser(c).Reads() }

// Decide implements [Command].
func (c EraseUser) Decide(s States) (Decision, error) {
	d, err := DeleteUser(c).Decide(s)
	if err != nil {
		return d, err
	}
	d.add(UserStream(c.ID), UserErased{})
	return d, nil
}
