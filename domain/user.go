package domain

import (
	"strings"
	"time"
)

// User is the account that owns clients and mappings.
//
// Rules: a username and an e-mail address belong to one user at a time, compared
// without case. The deletion of a user deletes the clients and mappings in the same
// append, and the id is never used again. A disabled user keeps everything and may use
// nothing. A plan is a name. Its limits are copied into the quota when the plan is set,
// and they stay when the operator changes the plan.
type User struct {
	ID           int64  `json:"id"`
	Username     string `json:"username"`
	Email        string `json:"email"`
	PasswordHash string `json:"password_hash,omitempty"` // PHC string, argon2id; never leaves the API
	// PasswordNumber counts the passwords of the user. A login is valid while the
	// password with which it began is the present one.
	PasswordNumber int64     `json:"password_number,omitempty"`
	Role           Role      `json:"role"`
	Plan           string    `json:"plan,omitempty"`
	Disabled       bool      `json:"disabled,omitempty"`
	Deleted        bool      `json:"deleted,omitempty"`
	Erased         bool      `json:"erased,omitempty"`
	CreatedAt      time.Time `json:"created_at"`
	UpdatedAt      time.Time `json:"updated_at"`
}

// Events of a user.
type (
	// UserCreated begins a user.
	UserCreated struct {
		UserID   int64  `json:"user_id"`
		Username string `json:"username"`
		Email    string `json:"email"`
	}
	// UserChanged gives the user's name and address from now on.
	UserChanged struct {
		Username string `json:"username"`
		Email    string `json:"email"`
	}
	// UserPasswordSet replaces the password; Hash is a PHC string.
	UserPasswordSet struct {
		Hash string `json:"hash"`
	}
	// UserRoleSet sets the role. A user without this event has [RoleUser].
	UserRoleSet struct {
		Role Role `json:"role"`
	}
	// UserPlanSet names the plan the user is on; its limits are in the quota.
	UserPlanSet struct {
		Plan string `json:"plan"`
	}
	// UserDisabled stops everything the user owns until UserEnabled.
	UserDisabled struct{}
	// UserEnabled ends UserDisabled.
	UserEnabled struct{}
	// UserDeleted ends the user.
	UserDeleted struct{}
)

// EventName implements [Event].
func (UserCreated) EventName() string { return "user_created" }

// EventName implements [Event].
func (UserChanged) EventName() string { return "user_changed" }

// EventName implements [Event].
func (UserPasswordSet) EventName() string { return "user_password_set" }

// EventName implements [Event].
func (UserRoleSet) EventName() string { return "user_role_set" }

// EventName implements [Event].
func (UserPlanSet) EventName() string { return "user_plan_set" }

// EventName implements [Event].
func (UserDisabled) EventName() string { return "user_disabled" }

// EventName implements [Event].
func (UserEnabled) EventName() string { return "user_enabled" }

// EventName implements [Event].
func (UserDeleted) EventName() string { return "user_deleted" }

// Exists implements [Aggregate].
func (u *User) Exists() bool { return u.ID != 0 }

// Live reports whether the user exists and was not deleted.
func (u *User) Live() bool { return u.Exists() && !u.Deleted }

// Clone implements [Aggregate].
func (u *User) Clone() Aggregate { c := *u; return &c }

// Apply implements [Aggregate].
func (u *User) Apply(event Event, at time.Time) {
	switch e := event.(type) {
	case UserCreated:
		*u = User{ID: e.UserID, Username: e.Username, Email: e.Email, Role: RoleUser, CreatedAt: at}
	case UserChanged:
		u.Username, u.Email = e.Username, e.Email
	case UserPasswordSet:
		u.PasswordHash = e.Hash
		u.PasswordNumber++
	case UserRoleSet:
		u.Role = e.Role
	case UserPlanSet:
		u.Plan = e.Plan
	case UserDisabled:
		u.Disabled = true
	case UserEnabled:
		u.Disabled = false
	case UserDeleted:
		u.Deleted = true
	case UserErased:
		u.Username, u.Email, u.PasswordHash, u.Erased = Erased, Erased, "", true
	default:
		return
	}
	u.UpdatedAt = at
}

// CreateUser begins a user with the quota it starts from.
type CreateUser struct {
	ID           int64
	Username     string // 1-64 characters, letters, digits and . _ - @
	Email        string
	PasswordHash string // PHC string, "" = the user cannot log in with a password
	Role         Role   // "" = RoleUser
	Plan         string // "" = none
	Limits       Limits // of the plan, or without one
}

// CommandName implements [Command].
func (CreateUser) CommandName() string { return "create_user" }

// Subject implements [Command].
func (c CreateUser) Subject() StreamID { return UserStream(c.ID) }

// Account implements [Command].
func (c CreateUser) Account() int64 { return c.ID }

// Reads implements [Command].
func (c CreateUser) Reads() []StreamID { return []StreamID{UserStream(c.ID), QuotaStream(c.ID)} }

// Decide implements [Command].
func (c CreateUser) Decide(s States) (Decision, error) {
	if c.Role == "" {
		c.Role = RoleUser
	}
	var f faults
	f.registeredID("user_id", c.ID)
	f.role("role", c.Role)
	f.text("plan", c.Plan, 0, maxNameLength)
	f.username("username", c.Username)
	f.email("email", c.Email)
	f.limits(c.Limits)
	if err := f.err("The user cannot be created as asked."); err != nil {
		return Decision{}, err
	}
	if s.user(c.ID).Exists() {
		return Decision{}, refuse(CodeIDTaken, "This user id is in use.")
	}
	stream := UserStream(c.ID)
	d := Decision{Account: c.ID, Claims: userClaims(c.ID, c.Username, c.Email)}
	d.add(stream, UserCreated{UserID: c.ID, Username: c.Username, Email: c.Email})
	if c.PasswordHash != "" {
		d.add(stream, UserPasswordSet{Hash: c.PasswordHash})
	}
	if c.Role != RoleUser {
		d.add(stream, UserRoleSet{Role: c.Role})
	}
	if c.Plan != "" {
		d.add(stream, UserPlanSet{Plan: c.Plan})
	}
	d.add(QuotaStream(c.ID), QuotaSet{Account: c.ID, Limits: c.Limits})
	return d, nil
}

func userClaims(id int64, username, email string) []Claim {
	return []Claim{
		{Scope: ClaimUsername, Value: strings.ToLower(username), Owner: UserStream(id)},
		{Scope: ClaimEmail, Value: strings.ToLower(email), Owner: UserStream(id)},
	}
}

// ChangeUser gives a user another name, address or password; nil keeps the present one.
type ChangeUser struct {
	ID           int64
	Username     *string
	Email        *string
	PasswordHash *string
}

// CommandName implements [Command].
func (ChangeUser) CommandName() string { return "change_user" }

// Subject implements [Command].
func (c ChangeUser) Subject() StreamID { return UserStream(c.ID) }

// Account implements [Command].
func (c ChangeUser) Account() int64 { return c.ID }

// Reads implements [Command].
func (c ChangeUser) Reads() []StreamID { return []StreamID{UserStream(c.ID)} }

// Decide implements [Command].
func (c ChangeUser) Decide(s States) (Decision, error) {
	u, err := s.liveUser(c.ID)
	if err != nil {
		return Decision{}, err
	}
	name, email := u.Username, u.Email
	var f faults
	if c.Username != nil {
		name = *c.Username
		f.username("username", name)
	}
	if c.Email != nil {
		email = *c.Email
		f.email("email", email)
	}
	if err := f.err("The user cannot be changed as asked."); err != nil {
		return Decision{}, err
	}
	d := Decision{Account: c.ID}
	if name != u.Username || email != u.Email {
		was, next := userClaims(c.ID, u.Username, u.Email), userClaims(c.ID, name, email)
		for i := range was {
			if was[i] != next[i] {
				d.Releases, d.Claims = append(d.Releases, was[i]), append(d.Claims, next[i])
			}
		}
		d.add(UserStream(c.ID), UserChanged{Username: name, Email: email})
	}
	if c.PasswordHash != nil && *c.PasswordHash != u.PasswordHash {
		d.add(UserStream(c.ID), UserPasswordSet{Hash: *c.PasswordHash})
	}
	return d, nil
}

// SetUserRole gives a user a role. It succeeds, and changes nothing, when the user has
// that role.
type SetUserRole struct {
	ID   int64
	Role Role
}

// CommandName implements [Command].
func (SetUserRole) CommandName() string { return "set_user_role" }

// Subject implements [Command].
func (c SetUserRole) Subject() StreamID { return UserStream(c.ID) }

// Account implements [Command].
func (c SetUserRole) Account() int64 { return c.ID }

// Reads implements [Command].
func (c SetUserRole) Reads() []StreamID { return []StreamID{UserStream(c.ID)} }

// Decide implements [Command].
func (c SetUserRole) Decide(s States) (Decision, error) {
	var f faults
	f.role("role", c.Role)
	if err := f.err("The role cannot be set as asked."); err != nil {
		return Decision{}, err
	}
	u, err := s.liveUser(c.ID)
	d := Decision{Account: c.ID}
	if err == nil && u.Role != c.Role {
		d.add(UserStream(c.ID), UserRoleSet{Role: c.Role})
	}
	return d, err
}

// SetUserPlan puts a user on a plan, with the limits the plan stands for now.
type SetUserPlan struct {
	ID     int64
	Plan   string
	Limits Limits
}

// CommandName implements [Command].
func (SetUserPlan) CommandName() string { return "set_user_plan" }

// Subject implements [Command].
func (c SetUserPlan) Subject() StreamID { return UserStream(c.ID) }

// Account implements [Command].
func (c SetUserPlan) Account() int64 { return c.ID }

// Reads implements [Command].
func (c SetUserPlan) Reads() []StreamID { return []StreamID{UserStream(c.ID), QuotaStream(c.ID)} }

// Decide implements [Command].
func (c SetUserPlan) Decide(s States) (Decision, error) {
	var f faults
	f.text("plan", c.Plan, 1, maxNameLength)
	f.limits(c.Limits)
	if err := f.err("The plan cannot be set as asked."); err != nil {
		return Decision{}, err
	}
	u, err := s.liveUser(c.ID)
	if err != nil {
		return Decision{}, err
	}
	d := Decision{Account: c.ID}
	if u.Plan != c.Plan {
		d.add(UserStream(c.ID), UserPlanSet{Plan: c.Plan})
	}
	if !s.quota(c.ID).Limits.Equal(c.Limits) {
		d.add(QuotaStream(c.ID), QuotaSet{Account: c.ID, Limits: c.Limits})
	}
	return d, nil
}

// SetUserEnabled enables or disables a user. It succeeds, and changes nothing, when the
// user is in that state.
type SetUserEnabled struct {
	ID      int64
	Enabled bool
}

// CommandName implements [Command].
func (c SetUserEnabled) CommandName() string { return enableName("user", c.Enabled) }

// Subject implements [Command].
func (c SetUserEnabled) Subject() StreamID { return UserStream(c.ID) }

// Account implements [Command].
func (c SetUserEnabled) Account() int64 { return c.ID }

// Reads implements [Command].
func (c SetUserEnabled) Reads() []StreamID { return []StreamID{UserStream(c.ID)} }

// Decide implements [Command].
func (c SetUserEnabled) Decide(s States) (Decision, error) {
	u, err := s.liveUser(c.ID)
	d := Decision{Account: c.ID}
	switch {
	case err != nil:
		return d, err
	case c.Enabled && u.Disabled:
		d.add(UserStream(c.ID), UserEnabled{})
	case !c.Enabled && !u.Disabled:
		d.add(UserStream(c.ID), UserDisabled{})
	}
	return d, nil
}

// DeleteUser ends a user with all that it holds.
type DeleteUser struct{ ID int64 }

// CommandName implements [Command].
func (DeleteUser) CommandName() string { return "delete_user" }

// Subject implements [Command].
func (c DeleteUser) Subject() StreamID { return UserStream(c.ID) }

// Account implements [Command].
func (c DeleteUser) Account() int64 { return c.ID }

// Reads implements [Command].
func (c DeleteUser) Reads() []StreamID { return []StreamID{UserStream(c.ID), QuotaStream(c.ID)} }

// Decide implements [Command].
func (c DeleteUser) Decide(s States) (Decision, error) {
	u, err := s.liveUser(c.ID)
	if err != nil {
		return Decision{}, err
	}
	d := Decision{Account: c.ID}
	if err := endAll(s, &d, c.ID); err != nil {
		return Decision{}, err
	}
	d.Releases = append(d.Releases, userClaims(c.ID, u.Username, u.Email)...)
	d.add(UserStream(c.ID), UserDeleted{})
	d.Closes = append(d.Closes, UserStream(c.ID), QuotaStream(c.ID))
	return d, nil
}

// liveUser gives the user, or the refusal when there is none.
func (s States) liveUser(id int64) (*User, error) {
	if err := s.need(UserStream(id)); err != nil {
		return nil, err
	}
	u := s.user(id)
	if !u.Live() {
		return nil, refuse(CodeUserNotFound, "There is no such user.")
	}
	return u, nil
}

// enabledUser is liveUser that also refuses a disabled user.
func (s States) enabledUser(id int64) (*User, error) {
	u, err := s.liveUser(id)
	if err == nil && u.Disabled {
		err = refuse(CodeUserDisabled, "The user is disabled.")
	}
	return u, err
}

func enableName(what string, enabled bool) string {
	if enabled {
		return "enable_" + what
	}
	return "disable_" + what
}
