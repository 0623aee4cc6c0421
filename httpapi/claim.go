package httpapi

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tunnox-net/tunnox/domain"
)

// ClaimBody is the body of POST /clients/claim.
type ClaimBody struct {
	ClaimCode  string  `json:"claim_code" minLength:"1" maxLength:"500" doc:"The code from tunnox agent claim-code on the client's machine. It proves that the agent is yours" example:"tnc_AAAA"`
	UserID     int64   `json:"user_id,omitempty" doc:"The user who gets the client. Default: the caller" example:"100000001"`
	Name       *string `json:"name,omitempty" maxLength:"100" doc:"Default: unchanged" example:"office"`
	ClientName *string `json:"client_name,omitempty" deprecated:"true" maxLength:"100" doc:"The older name of name" example:"office"`
}

// Claim is the content of a claim code, not yet verified.
type Claim interface {
	// Client is the anonymous client that the code is for.
	Client() int64
	// Verify reports whether the holder of the public key made the code, for this user
	// name or for every user, and whether the code has not expired.
	Verify(publicKey []byte, username string, now time.Time) error
}

func (a *api) registerClaim() {
	claimed := operation(http.MethodPost, "/clients/claim", "claim-client", "clients",
		"Make an anonymous client a managed one of a user: it goes on under another id, with its credential and its mappings", errorsOfPost...)
	claimed.DefaultStatus = http.StatusCreated
	huma.Register(a.huma, claimed, a.claimClient)
}

func (a *api) claimClient(ctx context.Context, in *struct {
	KeyHeader
	Body ClaimBody
}) (*struct {
	CreatedAnswer
	Body Client
}, error) {
	user, err := forUser(ctx, in.Body.UserID)
	if err != nil {
		return nil, err
	}
	name, _, blame, err := clientTexts(in.Body.Name, in.Body.ClientName, nil, nil)
	if err != nil {
		return nil, err
	}
	key, id, err := a.claimed(ctx, in.Body.ClaimCode, user)
	if err != nil {
		return nil, a.refusal(ctx, err)
	}
	r, err := a.create(ctx, in.KeyHeader, in.Body, domain.SequenceClient, func(next int64) domain.Command {
		return domain.ClaimClient{ID: id, NewID: next, UserID: user, Name: textOr(name), PublicKey: key}
	})
	if err != nil {
		return nil, a.refusal(ctx, blame(inBody(err)))
	}
	c, err := made[*domain.Client](r)
	if err != nil {
		return nil, a.refusal(ctx, err)
	}
	return &struct {
		CreatedAnswer
		Body Client
	}{createdOf(r, "clients"), a.clientBodies(ctx, c)[0]}, nil
}

// claimed verifies a claim code and gives the key it was verified with.
func (a *api) claimed(ctx context.Context, code string, user int64) (key []byte, id int64, err error) {
	refused := &domain.Error{Code: domain.CodeClaimRefused, Message: "The claim code does not prove this client, or is no longer good.",
		Faults: []domain.Fault{{Field: "claim_code", Message: "is not good; make another on the client's machine: tunnox agent claim-code"}}}
	if a.config.ParseClaim == nil {
		return nil, 0, refused
	}
	claim, err := a.config.ParseClaim(code)
	if err != nil {
		return nil, 0, refused
	}
	u, err := a.user(ctx, user, 0)
	if err != nil {
		return nil, 0, err
	}
	// Ask the log and not a read model: the client may have registered a moment ago.
	state, _, err := a.fold(ctx, domain.ClientStream(claim.Client()))
	if err != nil {
		return nil, 0, a.unreadable(ctx, err)
	}
	c, ok := state.(*domain.Client)
	if !ok {
		return nil, 0, errors.New("event stream of a client folds to something else")
	}
	// An unknown client and a wrong proof get the same answer.
	if !c.Exists() || claim.Verify(c.PublicKey, u.Username, a.now()) != nil {
		return nil, 0, refused
	}
	return c.PublicKey, c.ID, nil
}
