package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/projections"
)

// APIKey is an API key in the API. The secret is shown only at its creation.
type APIKey struct {
	KeyID     int64      `json:"key_id" example:"1234567890123"`
	UserID    *int64     `json:"user_id" doc:"The owner; null = the operator" example:"100000001"`
	Name      string     `json:"name" example:"ci"`
	Prefix    string     `json:"prefix" doc:"The first characters of the key, to tell keys apart" example:"tnk_1234567890123_Ab3d"`
	Scopes    []string   `json:"scopes" nullable:"false" doc:"The scopes of the key. The key never allows more than its owner may do"`
	ExpiresAt *time.Time `json:"expires_at" doc:"null = never" example:"2027-01-02T15:04:05Z"`
	LastUsed  *time.Time `json:"last_used" doc:"The last use that this control plane has seen since it started" example:"2026-01-02T15:04:05Z"`
	CreatedAt time.Time  `json:"created_at" example:"2026-01-02T15:04:05Z"`
}

// NewAPIKey is an API key with its secret, shown this once.
type NewAPIKey struct {
	APIKey
	Key string `json:"key,omitempty" doc:"Send it as Authorization: Bearer. It is shown once and not stored" example:"tnk_1_AAAA"`
}

// CreateKeyBody is the body of POST /keys.
type CreateKeyBody struct {
	UserID    int64      `json:"user_id,omitempty" doc:"The owner. Default: the caller" example:"100000001"`
	Name      string     `json:"name,omitempty" maxLength:"100" example:"ci"`
	Scopes    []string   `json:"scopes,omitempty" maxItems:"8" enum:"read,users:write,clients:write,mappings:write,shares:write,keys:write,webhooks:write,admin" doc:"Default: all scopes of the caller" example:"[\"read\",\"clients:write\"]"`
	ExpiresAt *time.Time `json:"expires_at,omitempty" doc:"Default, and null: never" example:"2027-01-02T15:04:05Z"`
}

func (a *api) registerKeys() {
	op := func(method, path, id, summary string, errs ...int) huma.Operation {
		return operation(method, "/keys"+path, id, "auth", summary, errs...)
	}
	created := op(http.MethodPost, "", "create-key", "Create an API key; it is shown this once", errorsOfPost...)
	created.DefaultStatus = http.StatusCreated
	huma.Register(a.huma, created, a.createKey)
	huma.Register(a.huma, op(http.MethodGet, "", "list-keys", "List API keys", errorsOfList...), a.listKeys)
	huma.Register(a.huma, conditional(op(http.MethodGet, "/{id}", "get-key", "Show an API key", errorsOfGet...)), a.getKey)
	huma.Register(a.huma, op(http.MethodDelete, "/{id}", "revoke-key", "Revoke an API key; it ends at once", errorsOfWrite...), a.revokeKey)
}

func (a *api) createKey(ctx context.Context, in *struct {
	KeyHeader
	Body CreateKeyBody
}) (*struct {
	CreatedAnswer
	Body NewAPIKey
}, error) {
	who, b := identity(ctx), in.Body
	c := domain.CreateKey{UserID: b.UserID, Name: b.Name, At: a.now()}
	if b.UserID == 0 {
		c.UserID = who.UserID // a key of the operator makes another key of the operator
	} else if _, err := forUser(ctx, b.UserID); err != nil {
		return nil, err
	}
	c.Scopes = who.Scopes
	if who.admin() && c.UserID != who.UserID {
		c.Scopes = domain.RoleUser.Scopes()
	}
	if len(b.Scopes) > 0 {
		c.Scopes = nil
		for _, s := range b.Scopes {
			c.Scopes = append(c.Scopes, domain.Scope(s))
		}
	}
	if missing := beyond(c.Scopes, who.Scopes); missing != "" {
		return nil, a.refusal(ctx, &domain.Error{Code: domain.CodeScopeDenied, Message: "A key cannot be given " + missing + " by who does not have it.",
			Faults: []domain.Fault{{Field: "scopes", Message: "must not be more than yours"}}})
	}
	if b.ExpiresAt != nil {
		c.ExpiresAt = b.ExpiresAt.UTC().Truncate(time.Second)
	}
	secret := drawBytes(32)
	var key string
	r, err := a.createWith(ctx, in.KeyHeader, in.Body, func(context.Context) (int64, error) { return drawTimedID(a.now()), nil },
		func(id int64) domain.Command {
			key = newSecret(keyPrefix, id, secret)
			hash := HashKey(key)
			c.ID, c.Hash, c.Prefix = id, hash[:], key[:len(keyPrefix)+len(formatID(id))+1+4]
			return c
		})
	if err != nil {
		return nil, a.refusal(ctx, inBody(err))
	}
	k, err := made[*domain.Key](r)
	if err != nil {
		return nil, a.refusal(ctx, err)
	}
	body := NewAPIKey{APIKey: a.keyBody(k)}
	if !r.Duplicate {
		body.Key = key
	}
	return &struct {
		CreatedAnswer
		Body NewAPIKey
	}{createdOf(r, "keys"), body}, nil
}

// beyond gives a scope of wanted that had does not contain, or "".
func beyond(wanted, had []domain.Scope) string {
	has := map[domain.Scope]bool{}
	for _, s := range had {
		has[s] = true
	}
	for _, s := range wanted {
		if !has[s] {
			return string(s)
		}
	}
	return ""
}

func (a *api) listKeys(ctx context.Context, in *ownedInput) (*pageAnswer[APIKey], error) {
	return listOwned(ctx, a, in, projections.AllKeys, projections.KeysOfUser, a.config.Reader.Keys,
		func(r projections.KeyRow) APIKey { return a.keyBody(&r.Key) })
}

func (a *api) getKey(ctx context.Context, in *oneInput) (*oneAnswer[APIKey], error) {
	row, err := a.key(ctx, in.ID, in.MinPosition)
	if err != nil {
		return nil, err
	}
	body := a.keyBody(&row.Key)
	return answerOne(in, tagOf(row.Version, shown(body.LastUsed)), body)
}

func (a *api) revokeKey(ctx context.Context, in *changeInput) (*WriteAnswer, error) {
	return a.end(ctx, in, domain.RevokeKey{ID: in.ID})
}

func (a *api) keyBody(k *domain.Key) APIKey {
	b := APIKey{KeyID: k.ID, Name: k.Name, Prefix: k.Prefix, Scopes: scopeNames(k.Scopes), CreatedAt: k.CreatedAt}
	if k.UserID != 0 {
		b.UserID = &k.UserID
	}
	if !k.ExpiresAt.IsZero() {
		b.ExpiresAt = &k.ExpiresAt
	}
	if used, ok := a.principals.lastUsed(k.ID); ok {
		used = used.UTC().Truncate(time.Second)
		b.LastUsed = &used
	}
	return b
}

func (a *api) key(ctx context.Context, id int64, min domain.Position) (projections.KeyRow, error) {
	row, found, err := one(ctx, a, min,
		func(ctx context.Context) (projections.KeyRow, bool, error) { return a.config.Reader.Key(ctx, id) },
		func(ctx context.Context) (projections.KeyRow, bool, error) {
			state, at, err := a.fold(ctx, domain.KeyStream(id))
			if k, ok := state.(*domain.Key); ok && err == nil {
				return projections.KeyRow{Versions: at, Key: *k}, true, nil
			}
			return projections.KeyRow{}, false, err
		})
	if err == nil && (!found || !row.Key.Live()) {
		err = noKey()
	}
	return row, err
}

func noKey() error { return notFound(domain.CodeKeyNotFound, "There is no such key.") }
