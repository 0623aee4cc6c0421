package httpapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/projections"
)

// User is a user as the API shows it. Its password is never shown.
type User struct {
	UserID      int64     `json:"user_id" example:"100000001"`
	Username    string    `json:"username" example:"ann"`
	Email       string    `json:"email" example:"ann@example.org"`
	HasPassword bool      `json:"has_password" doc:"Whether the user can log in with a password"`
	Role        string    `json:"role" enum:"admin,user" doc:"The role of the user" example:"user"`
	Plan        *string   `json:"plan" doc:"The plan of the limits; null for none" example:"pro"`
	Status      string    `json:"status" enum:"active,disabled" example:"active"`
	Quota       Quota     `json:"quota"`
	CreatedAt   time.Time `json:"created_at" example:"2026-01-02T15:04:05Z"`
	UpdatedAt   time.Time `json:"updated_at" example:"2026-01-02T15:04:05Z"`
}

// CreateUserBody is the body of POST /users.
type CreateUserBody struct {
	Username string  `json:"username" minLength:"1" maxLength:"64" doc:"Letters, digits and . _ - @; unique without regard to case" example:"ann"`
	Email    string  `json:"email" maxLength:"254" doc:"Unique without regard to case" example:"ann@example.org"`
	Password *string `json:"password,omitempty" minLength:"8" maxLength:"1024" doc:"Kept as an argon2id hash" example:"correct horse battery staple"`
	Role     string  `json:"role,omitempty" enum:"admin,user" doc:"Default: user" example:"user"`
	Plan     string  `json:"plan,omitempty" maxLength:"100" doc:"A plan of GET /plans. Default: none, without limits" example:"free"`
}

// ChangeUserBody is the body of PUT /users/{id}; what is left out or null stays.
type ChangeUserBody struct {
	UserID   *int64  `json:"user_id,omitempty" doc:"May be sent, but cannot be changed" example:"100000001"`
	Username *string `json:"username,omitempty" minLength:"1" maxLength:"64" example:"ann"`
	Email    *string `json:"email,omitempty" maxLength:"254" example:"ann@example.org"`
	Password *string `json:"password,omitempty" minLength:"8" maxLength:"1024" doc:"A new password ends every login with the old one" example:"correct horse battery staple"`
	// CurrentPassword is not part of what is asked for, but why it is allowed.
	CurrentPassword *string `json:"current_password,omitempty" maxLength:"1024" doc:"The present password. Callers who are not admins must give it to set a new one" example:"correct horse battery"`
}

type userAnswer struct {
	WriteAnswer
	Body User
}

type createUserInput struct {
	KeyHeader
	Body CreateUserBody
}

type changeUserInput struct {
	IDPath
	MatchHeader
	Body ChangeUserBody
}

// changeInput is the input of a change that is all in its path.
type changeInput struct {
	IDPath
	MatchHeader
}

func (a *api) registerUsers() {
	op := func(method, path, id, summary string, errs ...int) huma.Operation {
		return operation(method, "/users"+path, id, "users", summary, errs...)
	}
	created := op(http.MethodPost, "", "create-user", "Create a user", errorsOfPost...)
	created.DefaultStatus = http.StatusCreated
	huma.Register(a.huma, created, a.createUser)
	huma.Register(a.huma, op(http.MethodGet, "", "list-users", "List users", errorsOfList...), a.listUsers)
	huma.Register(a.huma, conditional(op(http.MethodGet, "/{id}", "get-user", "Show a user", errorsOfGet...)), a.getUser)
	huma.Register(a.huma, op(http.MethodPut, "/{id}", "change-user", "Change a user", errorsOfPut...), a.changeUser)
	huma.Register(a.huma, op(http.MethodDelete, "/{id}", "delete-user", "Delete a user with all of its clients and mappings", errorsOfWrite...), a.deleteUser)
	huma.Register(a.huma, op(http.MethodPost, "/{id}/enable", "enable-user", "Let a user use what it has again", errorsOfWrite...), a.setUserEnabled(true))
	huma.Register(a.huma, op(http.MethodPost, "/{id}/disable", "disable-user", "Stop everything a user has", errorsOfWrite...), a.setUserEnabled(false))
}

// The errors of the kinds of routes, beside those all of them have.
var (
	errorsOfGet   = []int{http.StatusNotFound, http.StatusUnprocessableEntity}
	errorsOfList  = []int{http.StatusUnprocessableEntity}
	errorsOfWrite = []int{http.StatusForbidden, http.StatusNotFound, http.StatusConflict, http.StatusPreconditionFailed, http.StatusUnprocessableEntity}
	errorsOfPost  = []int{http.StatusBadRequest, http.StatusForbidden, http.StatusNotFound, http.StatusConflict,
		http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType, http.StatusUnprocessableEntity}
	errorsOfPut = append([]int{http.StatusPreconditionFailed}, errorsOfPost...)
)

func (a *api) createUser(ctx context.Context, in *createUserInput) (*struct {
	CreatedAnswer
	Body User
}, error) {
	hash, hashed, err := a.password(ctx, in.Body.Password, in.IdempotencyKey)
	if err != nil {
		return nil, a.refusal(ctx, err)
	}
	var limits domain.Limits
	if in.Body.Plan != "" {
		if limits, err = a.plan(in.Body.Plan); err != nil {
			return nil, err
		}
	}
	body := in.Body
	body.Password = hashed
	r, err := a.create(ctx, in.KeyHeader, body, domain.SequenceUser, func(id int64) domain.Command {
		c := domain.CreateUser{ID: id, Username: in.Body.Username, Email: in.Body.Email, Role: domain.Role(in.Body.Role),
			Plan: in.Body.Plan, Limits: limits}
		if hash != nil {
			c.PasswordHash = *hash
		}
		return c
	})
	if err != nil {
		return nil, a.refusal(ctx, err)
	}
	u, err := made[*domain.User](r)
	if err != nil {
		return nil, a.refusal(ctx, err)
	}
	limits, err = firstLimits(r)
	if err != nil {
		return nil, a.refusal(ctx, err)
	}
	return &struct {
		CreatedAnswer
		Body User
	}{createdOf(r, "users"), userBody(projections.UserRow{User: *u}, projections.QuotaRow{Limits: limits})}, nil
}

// password gives the hash to keep and what stands for the password in the hash
// of the request. Without an idempotency key nobody asks for the second.
func (a *api) password(ctx context.Context, password *string, key string) (hash, fingerprint *string, err error) {
	if password == nil {
		return nil, nil, nil
	}
	h, err := a.passwords.hash(ctx, *password)
	if err != nil || key == "" {
		return &h, nil, err
	}
	f, err := a.passwords.fingerprint(ctx, *password, key)
	return &h, &f, err
}

// firstLimits gives the limits a new user began with, from the records that
// began it.
func firstLimits(r domain.Receipt) (domain.Limits, error) {
	for _, record := range r.Records {
		event, err := record.Event()
		if err != nil {
			return domain.Limits{}, err
		}
		if set, ok := event.(domain.QuotaSet); ok {
			return set.Limits, nil
		}
	}
	return domain.Limits{}, fmt.Errorf("receipt of %s holds no quota", r.Subject)
}

// listUsersInput asks for a page of users.
type listUsersInput struct {
	PageInput
	Status string `query:"status" enum:"active,disabled" doc:"Only users of this status" example:"active"`
	Role   string `query:"role" enum:"admin,user" doc:"Only users of this role" example:"user"`
}

// past reports whether a request is about the past.
func past(ctx context.Context) bool {
	_, is := momentOf(ctx)
	return is
}

func (in listUsersInput) pass(u *projections.UserRow) bool {
	return (in.Status == "" || in.Status == enabledStatus(u.Disabled)) && (in.Role == "" || in.Role == string(u.Role))
}

// users reads the page; who is no admin is all there is to them.
func (a *api) users(ctx context.Context, in *listUsersInput) (rows []projections.UserRow, next int64, err error) {
	who := identity(ctx)
	if !who.admin() {
		row, err := a.user(ctx, who.UserID, in.MinPosition)
		if p, ok := errors.AsType[*Problem](err); ok && p.Code == string(domain.CodeUserNotFound) && past(ctx) {
			return nil, 0, nil // at that moment there was no such user yet
		}
		if err != nil || in.After >= row.ID || !in.pass(&row) {
			return nil, 0, err
		}
		return []projections.UserRow{row}, 0, nil
	}
	if in.Status == "" && in.Role == "" {
		return a.config.Reader.Users(ctx, in.After, in.Limit)
	}
	return filtered(in.After, in.Limit, func(u projections.UserRow) int64 { return u.ID },
		func(after int64, limit int) ([]projections.UserRow, int64, error) {
			return a.config.Reader.Users(ctx, after, limit)
		},
		func(page []projections.UserRow) ([]projections.UserRow, error) {
			return slices.DeleteFunc(page, func(u projections.UserRow) bool { return !in.pass(&u) }), nil
		})
}

func (a *api) listUsers(ctx context.Context, in *listUsersInput) (*pageAnswer[User], error) {
	if err := a.shows(ctx, in.MinPosition); err != nil {
		return nil, err
	}
	rows, next, err := a.users(ctx, in)
	if err != nil {
		return nil, a.unlisted(ctx, err)
	}
	ids := make([]int64, len(rows))
	for i, row := range rows {
		ids[i] = row.ID
	}
	quotas, err := a.config.Reader.Quotas(ctx, ids...)
	if err != nil {
		return nil, a.unlisted(ctx, err)
	}
	held := make(map[int64]projections.QuotaRow, len(quotas))
	for _, q := range quotas {
		held[q.Account] = q
	}
	return pageOf(rows, next, func(u projections.UserRow) User { return userBody(u, held[u.ID]) }), nil
}

func (a *api) getUser(ctx context.Context, in *oneInput) (*struct {
	ReadAnswer
	Body User
}, error) {
	u, err := a.user(ctx, in.ID, in.MinPosition)
	if err != nil {
		return nil, err
	}
	q, err := a.quota(ctx, in.ID, in.MinPosition)
	if err != nil {
		return nil, err
	}
	// What is shown has two versions; the first is the one If-Match speaks of.
	answer, err := in.tagged(fmt.Sprintf(`"%d-%d"`, u.Version, q.Version))
	if err != nil {
		return nil, err
	}
	return &struct {
		ReadAnswer
		Body User
	}{answer, userBody(u, q)}, nil
}

func (a *api) changeUser(ctx context.Context, in *changeUserInput) (*userAnswer, error) {
	if in.Body.UserID != nil && *in.Body.UserID != in.ID {
		return nil, invalid("body.user_id", fmt.Sprintf("cannot be changed, is %d", in.ID))
	}
	if err := a.mayChangePassword(ctx, in); err != nil {
		return nil, err
	}
	hash, hashed, err := a.password(ctx, in.Body.Password, in.IdempotencyKey)
	if err != nil {
		return nil, a.refusal(ctx, err)
	}
	body := in.Body
	body.Password, body.CurrentPassword = hashed, nil
	return a.userCommand(ctx, in.MatchHeader, body,
		domain.ChangeUser{ID: in.ID, Username: in.Body.Username, Email: in.Body.Email, PasswordHash: hash})
}

// mayChangePassword refuses a new password to who does not know the present one,
// unless it is an admin: a token that was copied must not become an account. Whoever
// has the password may do all that the user may, so that it is set by nobody who
// may do less: a key is bounded by its scopes.
func (a *api) mayChangePassword(ctx context.Context, in *changeUserInput) error {
	who := identity(ctx)
	if in.Body.Password == nil || who.admin() && beyond(domain.RoleAdmin.Scopes(), who.Scopes) == "" {
		return nil
	}
	u, err := a.user(ctx, in.ID, 0)
	if err != nil {
		return err
	}
	if missing := beyond(u.Role.Scopes(), who.Scopes); missing != "" {
		return a.refusal(ctx, &domain.Error{Code: domain.CodeScopeDenied, Message: "A password cannot be set by who may do less than its user: this key lacks " + missing + ".",
			Faults: []domain.Fault{{Field: "password", Message: "must be set by who may do as much"}}})
	}
	if who.admin() || u.PasswordHash == "" {
		return nil
	}
	account := strings.ToLower(u.Username)
	if wait := a.attempts.begin(tracked(ctx).source, account, a.tick()); wait > 0 {
		return tooMany(wait, "Too many attempts. Wait a moment.")
	}
	given := ""
	if in.Body.CurrentPassword != nil {
		given = *in.Body.CurrentPassword
	}
	right, err := a.passwords.verify(ctx, u.PasswordHash, given)
	if err != nil {
		return a.refusal(ctx, err)
	}
	if !right {
		return invalid("body.current_password", "must be the present password")
	}
	a.attempts.succeeded(tracked(ctx).source, account)
	return nil
}

func (a *api) setUserEnabled(enabled bool) func(context.Context, *changeInput) (*userAnswer, error) {
	return func(ctx context.Context, in *changeInput) (*userAnswer, error) {
		return a.userCommand(ctx, in.MatchHeader, nil, domain.SetUserEnabled{ID: in.ID, Enabled: enabled})
	}
}

// userCommand carries out a command about a user. The receipt holds the user;
// its quota is read as of the receipt's position, so that it is not older than
// the answer.
func (a *api) userCommand(ctx context.Context, h MatchHeader, body any, c domain.Command) (*userAnswer, error) {
	r, err := a.submit(ctx, h, body, c)
	if err != nil {
		return nil, a.refusal(ctx, err)
	}
	u, err := stateOf[*domain.User](r)
	if err != nil {
		return nil, a.refusal(ctx, err)
	}
	q, err := a.quota(ctx, u.ID, r.Position)
	if err != nil {
		return nil, err
	}
	return &userAnswer{answerOf(r), userBody(projections.UserRow{User: *u}, q)}, nil
}

func (a *api) deleteUser(ctx context.Context, in *changeInput) (*WriteAnswer, error) {
	return a.end(ctx, in, domain.DeleteUser{ID: in.ID})
}

// end carries out a command after which there is nothing to show.
func (a *api) end(ctx context.Context, in *changeInput, c domain.Command) (*WriteAnswer, error) {
	r, err := a.submit(ctx, in.MatchHeader, nil, c)
	if err != nil {
		return nil, a.refusal(ctx, err)
	}
	answer := answerOf(r)
	return &answer, nil
}

// userBody shows a user as of the read models, or of the log.
func userBody(u projections.UserRow, q projections.QuotaRow) User {
	body := User{UserID: u.ID, Username: u.Username, Email: u.Email, HasPassword: u.HasPassword || u.PasswordHash != "", Role: string(u.Role),
		Status: enabledStatus(u.Disabled), Quota: quotaBody(u.ID, q), CreatedAt: u.CreatedAt, UpdatedAt: u.UpdatedAt}
	if u.Plan != "" {
		body.Plan = &u.Plan
	}
	return body
}

func enabledStatus(disabled bool) string {
	if disabled {
		return "disabled"
	}
	return "active"
}
