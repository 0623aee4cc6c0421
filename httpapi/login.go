package httpapi

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/projections"
)

// LoginBody is the body of POST /auth/login.
type LoginBody struct {
	Username string `json:"username" minLength:"1" maxLength:"64" example:"ann"`
	Password string `json:"password" minLength:"1" maxLength:"1024" example:"correct horse battery staple"`
}

// RefreshBody is the body of POST /auth/refresh.
type RefreshBody struct {
	RefreshToken string `json:"refresh_token" minLength:"1" maxLength:"200" example:"tnr_1_AAAA"`
}

// Tokens are the tokens of a login. The refresh token is good once, and its use gives
// the next one. A second use ends the login.
type Tokens struct {
	AccessToken      string `json:"access_token" doc:"Send it as Authorization: Bearer" example:"eyJhbGciOiJFZERTQSJ9.e30.AAAA"`
	RefreshToken     string `json:"refresh_token" doc:"For one POST /auth/refresh" example:"tnr_1_AAAA"`
	TokenType        string `json:"token_type" enum:"Bearer" example:"Bearer"`
	ExpiresIn        int64  `json:"expires_in" doc:"The lifetime of the access token in seconds" example:"900"`
	RefreshExpiresIn int64  `json:"refresh_expires_in" doc:"The lifetime of the refresh token in seconds" example:"604800"`
}

// Me is the caller.
type Me struct {
	UserID *int64   `json:"user_id" doc:"null = the operator" example:"100000001"`
	Actor  string   `json:"actor" example:"user:100000001"`
	Role   string   `json:"role" enum:"admin,user" example:"user"`
	Scopes []string `json:"scopes" nullable:"false" doc:"The scopes of the token"`
}

type tokensAnswer struct{ Body Tokens }

func (a *api) registerAuth() {
	op := func(method, path, id, summary string, errs ...int) huma.Operation {
		return operation(method, "/auth"+path, id, "auth", summary, errs...)
	}
	open := []int{http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType, http.StatusUnprocessableEntity, http.StatusTooManyRequests}
	huma.Register(a.huma, op(http.MethodPost, "/login", "login", "Log in with a password", open...), a.login)
	huma.Register(a.huma, op(http.MethodPost, "/refresh", "refresh", "Change a refresh token for new tokens", open...), a.refresh)
	huma.Register(a.huma, op(http.MethodPost, "/logout", "logout", "End the login that the access token is of", http.StatusConflict), a.logout)
	huma.Register(a.huma, op(http.MethodGet, "/me", "whoami", "Show who asks, and what they may"), a.whoami)
	huma.Register(a.huma, huma.Operation{OperationID: "jwks", Method: http.MethodGet, Path: "/.well-known/jwks.json", Tags: []string{"auth"}, Security: forAnybody,
		Summary: "The public keys that verify access tokens (RFC 7517)"},
		func(context.Context, *struct{}) (*struct{ Body KeySet }, error) {
			return &struct{ Body KeySet }{KeySet{Keys: a.tokens.jwks()}}, nil
		})
}

func (a *api) login(ctx context.Context, in *struct{ Body LoginBody }) (*tokensAnswer, error) {
	account := strings.ToLower(in.Body.Username)
	who := asStranger
	if a.attempts.knows(tracked(ctx).source, account) {
		who = asKnown
	}
	if a.passwords.turns.full(who) {
		return nil, busy() // not counted as an attempt
	}
	if wait := a.attempts.begin(tracked(ctx).source, account, a.tick()); wait > 0 {
		return nil, tooMany(wait, "Too many attempts. Wait a moment.")
	}
	a.await(ctx, 0, a.config.Reader.Wait)
	row, found, err := a.named(ctx, in.Body.Username)
	if err != nil {
		return nil, a.unreadable(ctx, err)
	}
	// An unknown name takes as much time as a wrong password.
	right, err := a.passwords.of(who).verify(ctx, row.PasswordHash, in.Body.Password)
	if err != nil {
		return nil, a.refusal(ctx, err)
	}
	if !found || !right {
		return nil, a.refusal(ctx, &domain.Error{Code: domain.CodeLoginRefused, Message: "The user name or the password is wrong."})
	}
	a.attempts.succeeded(tracked(ctx).source, account)
	tracked(ctx).identity = Identity{Actor: "user:" + formatID(row.ID), Allowed: "password", UserID: row.ID}
	secret := drawBytes(2 * sha256.Size)
	c := domain.BeginLogin{UserID: row.ID, PasswordHash: row.PasswordHash, ExpiresAt: a.now().Truncate(time.Second).Add(RefreshTime)}
	c.Family, c.Hash = halves(secret)
	r, err := a.createTimed(ctx, func(id int64) domain.Command { c.ID = id; return c })
	if err != nil {
		return nil, a.refusal(ctx, err)
	}
	return a.tokensFor(ctx, r, secret)
}

// named finds the user of a name in the read models, or in the log while they are away:
// everybody can log in as long as there is the log.
func (a *api) named(ctx context.Context, name string) (projections.UserRow, bool, error) {
	row, found, err := a.config.Reader.UserNamed(ctx, name)
	if err == nil {
		return row, found, nil
	}
	stream, err := a.config.History.Holder(ctx, domain.ClaimUsername, strings.ToLower(name))
	if err != nil || stream == "" {
		return projections.UserRow{}, false, err
	}
	state, at, err := a.fold(ctx, stream)
	u, ok := state.(*domain.User)
	if err != nil || !ok || !u.Live() || !strings.EqualFold(u.Username, name) {
		return projections.UserRow{}, false, err
	}
	return projections.UserRow{Versions: at, User: *u}, true, nil
}

// halves hashes the two halves of a refresh token.
func halves(secret []byte) (family, generation []byte) {
	f, g := sha256.Sum256(secret[:sha256.Size]), sha256.Sum256(secret[sha256.Size:])
	return f[:], g[:]
}

func (a *api) tokensFor(ctx context.Context, r domain.Receipt, secret []byte) (*tokensAnswer, error) {
	l, err := stateOf[*domain.Login](r)
	if err != nil {
		return nil, a.refusal(ctx, err)
	}
	access, err := a.tokens.issue(l.UserID, l.ID, a.now())
	if err != nil {
		return nil, a.refusal(ctx, err)
	}
	return &tokensAnswer{Tokens{AccessToken: access, RefreshToken: newSecret(refreshPrefix, l.ID, secret), TokenType: "Bearer",
		ExpiresIn: int64(AccessTime / time.Second), RefreshExpiresIn: int64(RefreshTime / time.Second)}}, nil
}

func (a *api) refresh(ctx context.Context, in *struct{ Body RefreshBody }) (*tokensAnswer, error) {
	ended := a.refusal(ctx, &domain.Error{Code: domain.CodeLoginEnded, Message: "This login has ended. Log in again."})
	id, ok := secretID(in.Body.RefreshToken, refreshPrefix)
	if !ok {
		return nil, ended
	}
	_, text, _ := strings.Cut(strings.TrimPrefix(in.Body.RefreshToken, refreshPrefix), "_")
	secret, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(secret) != 2*sha256.Size {
		return nil, ended
	}
	next := append(append([]byte(nil), secret[:sha256.Size]...), drawBytes(sha256.Size)...)
	c := domain.RefreshLogin{ID: id, At: a.now(), ExpiresAt: a.now().Truncate(time.Second).Add(RefreshTime)}
	c.Family, c.Hash = halves(secret)
	_, c.Next = halves(next)
	who := Identity{Actor: "login:" + formatID(id), Allowed: "refresh token"}
	if row, known, err := a.config.Reader.Login(ctx, id); err == nil && known {
		who.Actor = "user:" + formatID(row.UserID)
	}
	tracked(ctx).identity = who
	r, err := a.submit(ctx, MatchHeader{}, nil, c)
	if err != nil {
		return nil, a.refusal(ctx, err)
	}
	if l, err := stateOf[*domain.Login](r); err == nil && !l.Live() {
		a.logger.WarnContext(ctx, "a refresh token was used twice, so its login was ended", "request", tracked(ctx).id, "user", l.UserID, "login", id)
		return nil, ended
	}
	return a.tokensFor(ctx, r, next)
}

func (a *api) logout(ctx context.Context, _ *struct{}) (*WriteAnswer, error) {
	id := identity(ctx).LoginID
	if id == 0 {
		return nil, problem(http.StatusConflict, "not_a_login", "This token does not belong to a login. End a key with DELETE /api/v1/keys/{id}.")
	}
	r, err := a.submit(ctx, MatchHeader{}, nil, domain.EndLogin{ID: id, Reason: domain.EndLogout})
	if err != nil {
		return nil, a.refusal(ctx, err)
	}
	answer := answerOf(r)
	return &answer, nil
}

func (a *api) whoami(ctx context.Context, _ *struct{}) (*struct{ Body Me }, error) {
	who := identity(ctx)
	me := Me{Actor: who.Actor, Role: string(who.Role), Scopes: scopeNames(who.Scopes)}
	if who.UserID != 0 {
		me.UserID = &who.UserID
	}
	return &struct{ Body Me }{me}, nil
}

func scopeNames(scopes []domain.Scope) []string {
	names := make([]string, len(scopes))
	for i, s := range scopes {
		names[i] = string(s)
	}
	return names
}

// createTimed is create for resources whose ids do not come from a sequence.
func (a *api) createTimed(ctx context.Context, command func(id int64) domain.Command) (domain.Receipt, error) {
	return a.createWith(ctx, KeyHeader{}, nil, func(context.Context) (int64, error) { return drawTimedID(a.now()), nil }, command)
}

var errPassword = errors.New("the kept password hash cannot be read")
