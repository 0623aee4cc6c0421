package domain

import (
	"bytes"
	"crypto/subtle"
	"time"
)

// Login begins when a user gives the password. It is the family of all refresh tokens
// that follow.
//
// Rules: a refresh token is good once, and its use gives the next one. A second use
// means that the token was copied. Nobody can tell which holder is the user, so the
// whole family ends. A refresh token has two secret halves: one of the family and one
// of the generation. Without the half of the family nobody can end the family. A login
// ends when its user is deleted, when the password changes, and when its time is over.
// An ended login stays ended.
type Login struct {
	ID         int64     `json:"id"`
	UserID     int64     `json:"user_id"`
	Password   int64     `json:"password"` // which of the user's passwords it was
	Family     []byte    `json:"family"`   // SHA-256 of the family's half
	Generation int64     `json:"generation"`
	Hash       []byte    `json:"hash"` // SHA-256 of the generation's half
	ExpiresAt  time.Time `json:"expires_at"`
	Ended      EndReason `json:"ended,omitempty"`
	CreatedAt  time.Time `json:"created_at"`
	UpdatedAt  time.Time `json:"updated_at"`
}

// EndReason says why a login ended.
type EndReason string

// The reasons.
const (
	EndLogout  EndReason = "logout"
	EndReuse   EndReason = "reuse" // a refresh token was used twice
	EndExpired EndReason = "expired"
)

// Events of a login.
type (
	// LoginBegun begins a login.
	LoginBegun struct {
		LoginID   int64     `json:"login_id"`
		UserID    int64     `json:"user_id"`
		Password  int64     `json:"password"`
		Family    []byte    `json:"family"`
		Hash      []byte    `json:"hash"`
		ExpiresAt time.Time `json:"expires_at"`
	}
	// LoginRefreshed makes another refresh token the only good one.
	LoginRefreshed struct {
		Generation int64     `json:"generation"`
		Hash       []byte    `json:"hash"`
		ExpiresAt  time.Time `json:"expires_at"`
	}
	// LoginEnded ends a login with all of its tokens.
	LoginEnded struct {
		Reason EndReason `json:"reason"`
	}
)

// EventName implements [Event].
func (LoginBegun) EventName() string { return "login_begun" }

// EventName implements [Event].
func (LoginRefreshed) EventName() string { return "login_refreshed" }

// EventName implements [Event].
func (LoginEnded) EventName() string { return "login_ended" }

// Exists implements [Aggregate].
func (l *Login) Exists() bool { return l.ID != 0 }

// Live reports whether the login exists and has not ended; its time may be over.
func (l *Login) Live() bool { return l.Exists() && l.Ended == "" }

// Good reports whether the login is valid at a moment, for the present state of its user.
func (l *Login) Good(u *User, at time.Time) bool {
	return l.Live() && at.Before(l.ExpiresAt) && u.Live() && !u.Disabled && u.ID == l.UserID && u.PasswordNumber == l.Password
}

// Clone implements [Aggregate].
func (l *Login) Clone() Aggregate {
	c := *l
	c.Family, c.Hash = bytes.Clone(l.Family), bytes.Clone(l.Hash)
	return &c
}

// Apply implements [Aggregate].
func (l *Login) Apply(event Event, at time.Time) {
	switch e := event.(type) {
	case LoginBegun:
		*l = Login{ID: e.LoginID, UserID: e.UserID, Password: e.Password, Family: e.Family, Generation: 1, Hash: e.Hash,
			ExpiresAt: e.ExpiresAt, CreatedAt: at}
	case LoginRefreshed:
		l.Generation, l.Hash, l.ExpiresAt = e.Generation, e.Hash, e.ExpiresAt
	case LoginEnded:
		l.Ended = e.Reason
	default:
		return
	}
	l.UpdatedAt = at
}

// BeginLogin begins a login of a user whose password was checked.
type BeginLogin struct {
	ID           int64
	UserID       int64
	PasswordHash string // the hash that was checked; the login is refused when the user has another by now
	Family, Hash []byte
	ExpiresAt    time.Time
}

// CommandName implements [Command].
func (BeginLogin) CommandName() string { return "begin_login" }

// Subject implements [Command].
func (c BeginLogin) Subject() StreamID { return LoginStream(c.ID) }

// Account implements [Command].
func (c BeginLogin) Account() int64 { return c.UserID }

// Reads implements [Command].
func (c BeginLogin) Reads() []StreamID { return []StreamID{LoginStream(c.ID), UserStream(c.UserID)} }

// Decide implements [Command].
func (c BeginLogin) Decide(s States) (Decision, error) {
	var f faults
	f.hash("family", c.Family)
	f.hash("hash", c.Hash)
	if err := f.err("The login cannot begin as asked."); err != nil {
		return Decision{}, err
	}
	u := s.user(c.UserID)
	if !u.Live() || u.Disabled || u.PasswordHash == "" || u.PasswordHash != c.PasswordHash {
		return Decision{}, refuse(CodeLoginRefused, "The user name or the password is wrong.")
	}
	if s.login(c.ID).Exists() {
		return Decision{}, refuse(CodeIDTaken, "This login id is in use.")
	}
	d := Decision{Account: c.UserID}
	d.add(LoginStream(c.ID), LoginBegun{LoginID: c.ID, UserID: c.UserID, Password: u.PasswordNumber,
		Family: c.Family, Hash: c.Hash, ExpiresAt: c.ExpiresAt})
	return d, nil
}

// RefreshLogin replaces a refresh token by the next one. A token that was used before
// ends the login; the command succeeds, and the state shows the end.
type RefreshLogin struct {
	ID           int64
	Family, Hash []byte // of the token that was given
	Next         []byte // of the one that takes its place
	ExpiresAt    time.Time
	At           time.Time // now
}

// CommandName implements [Command].
func (RefreshLogin) CommandName() string { return "refresh_login" }

// Subject implements [Command].
func (c RefreshLogin) Subject() StreamID { return LoginStream(c.ID) }

// Account implements [Command].
func (RefreshLogin) Account() int64 { return 0 }

// Reads implements [Command].
func (c RefreshLogin) Reads() []StreamID { return []StreamID{LoginStream(c.ID)} }

// Decide implements [Command].
func (c RefreshLogin) Decide(s States) (Decision, error) {
	var f faults
	f.hash("next", c.Next)
	if err := f.err("The login cannot be refreshed as asked."); err != nil {
		return Decision{}, err
	}
	l := s.login(c.ID)
	if !l.Live() || subtle.ConstantTimeCompare(c.Family, l.Family) == 0 {
		return Decision{}, loginEnded()
	}
	if err := s.need(UserStream(l.UserID)); err != nil {
		return Decision{}, err
	}
	d := Decision{Account: l.UserID}
	switch {
	case !l.Good(s.user(l.UserID), c.At):
		return Decision{}, loginEnded()
	case subtle.ConstantTimeCompare(c.Hash, l.Hash) == 0:
		endLogin(&d, c.ID, EndReuse)
	default:
		d.add(LoginStream(c.ID), LoginRefreshed{Generation: l.Generation + 1, Hash: c.Next, ExpiresAt: c.ExpiresAt})
	}
	return d, nil
}

// EndLogin ends a login.
type EndLogin struct {
	ID     int64
	Reason EndReason
}

// CommandName implements [Command].
func (EndLogin) CommandName() string { return "end_login" }

// Subject implements [Command].
func (c EndLogin) Subject() StreamID { return LoginStream(c.ID) }

// Account implements [Command].
func (EndLogin) Account() int64 { return 0 }

// Reads implements [Command].
func (c EndLogin) Reads() []StreamID { return []StreamID{LoginStream(c.ID)} }

// Decide implements [Command].
func (c EndLogin) Decide(s States) (Decision, error) {
	l := s.login(c.ID)
	if !l.Live() {
		return Decision{}, loginEnded()
	}
	d := Decision{Account: l.UserID}
	endLogin(&d, c.ID, c.Reason)
	return d, nil
}

func endLogin(d *Decision, id int64, reason EndReason) {
	d.add(LoginStream(id), LoginEnded{Reason: reason})
	d.Closes = append(d.Closes, LoginStream(id))
}

func loginEnded() error {
	return refuse(CodeLoginEnded, "This login has ended. Log in again.")
}
