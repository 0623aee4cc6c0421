package httpapi

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/projections"
)

// proofTime bounds the question for a TXT record.
const proofTime = 5 * time.Second

// LookupTXT gives the TXT records of a name, as [net.Resolver] does.
type LookupTXT func(ctx context.Context, name string) ([]string, error)

// Domain is a domain of a user's own in the API.
type Domain struct {
	DomainID   int64      `json:"domain_id" example:"1234567890123"`
	UserID     int64      `json:"user_id" example:"100000001"`
	Host       string     `json:"host" doc:"What public_host of a mapping may be when the domain is verified" example:"shop.example.com"`
	ProofName  string     `json:"proof_name" doc:"The name of the TXT record that proves it" example:"_tunnox.shop.example.com"`
	ProofValue string     `json:"proof_value" doc:"The text of that record" example:"tunnox-domain=ABCDEFGHIJKLMNOPQRSTUVWXYZ"`
	Status     string     `json:"status" enum:"unverified,verified" example:"verified"`
	VerifiedAt *time.Time `json:"verified_at" doc:"null = it is not verified" example:"2026-01-02T15:04:05Z"`
	CreatedAt  time.Time  `json:"created_at" example:"2026-01-02T15:04:05Z"`
	UpdatedAt  time.Time  `json:"updated_at" example:"2026-01-02T15:04:05Z"`
}

// CreateDomainBody is the body of POST /domains.
type CreateDomainBody struct {
	UserID int64  `json:"user_id,omitempty" doc:"Whose it is to be. Default: the caller" example:"100000001"`
	Host   string `json:"host" minLength:"1" maxLength:"253" doc:"The full name" example:"shop.example.com"`
}

type domainAnswer struct {
	WriteAnswer
	Body Domain
}

func (a *api) registerDomains() {
	op := func(method, path, id, summary string, errs ...int) huma.Operation {
		return operation(method, "/domains"+path, id, "domains", summary, errs...)
	}
	created := op(http.MethodPost, "", "create-domain", "Add a domain of a user's own; the answer says which TXT record proves it", errorsOfPost...)
	created.DefaultStatus = http.StatusCreated
	huma.Register(a.huma, created, a.createDomain)
	huma.Register(a.huma, op(http.MethodGet, "", "list-domains", "List domains", errorsOfList...), a.listDomains)
	huma.Register(a.huma, conditional(op(http.MethodGet, "/{id}", "get-domain", "Show a domain", errorsOfGet...)), a.getDomain)
	huma.Register(a.huma, op(http.MethodPost, "/{id}/verify", "verify-domain", "Look for the TXT record of a domain; then mappings may have its name", errorsOfWrite...), a.verifyDomain)
	huma.Register(a.huma, op(http.MethodDelete, "/{id}", "delete-domain", "Delete a domain that no mapping uses", errorsOfWrite...), a.deleteDomain)
}

func (a *api) createDomain(ctx context.Context, in *struct {
	KeyHeader
	Body CreateDomainBody
}) (*struct {
	CreatedAnswer
	Body Domain
}, error) {
	user, err := forUser(ctx, in.Body.UserID)
	if err != nil {
		return nil, err
	}
	now, token := a.now(), rand.Text()
	r, err := a.createWith(ctx, in.KeyHeader, in.Body, func(context.Context) (int64, error) { return drawTimedID(now), nil },
		func(id int64) domain.Command {
			return domain.CreateDomain{ID: id, UserID: user, Host: in.Body.Host, Token: token}
		})
	if err != nil {
		return nil, a.refusal(ctx, inBody(err))
	}
	d, err := made[*domain.Domain](r)
	if err != nil {
		return nil, a.refusal(ctx, err)
	}
	return &struct {
		CreatedAnswer
		Body Domain
	}{createdOf(r, "domains"), domainBody(d)}, nil
}

func (a *api) listDomains(ctx context.Context, in *ownedInput) (*pageAnswer[Domain], error) {
	return listOwned(ctx, a, in, projections.AllDomains, projections.DomainsOfUser, a.config.Reader.Domains,
		func(r projections.DomainRow) Domain { return domainBody(&r.Domain) })
}

func (a *api) getDomain(ctx context.Context, in *oneInput) (*oneAnswer[Domain], error) {
	row, err := a.domain(ctx, in.ID, in.MinPosition)
	if err != nil {
		return nil, err
	}
	return answerOne(in, etag(row.Version), domainBody(&row.Domain))
}

// codeNotProved is the refusal of a domain whose record is not there.
const codeNotProved domain.Code = "domain_not_proved"

// verifyDomain looks for the record first. Who may see it in the answer may put it
// there: the caller is the domain's user, or an admin.
func (a *api) verifyDomain(ctx context.Context, in *changeInput) (*domainAnswer, error) {
	row, err := a.domain(ctx, in.ID, 0)
	if err != nil {
		return nil, err
	}
	if !row.Verified() {
		if err := a.prove(ctx, &row.Domain); err != nil {
			return nil, err
		}
	}
	r, err := a.submit(ctx, in.MatchHeader, nil, domain.VerifyDomain{ID: in.ID})
	if err != nil {
		return nil, a.refusal(ctx, err)
	}
	d, err := stateOf[*domain.Domain](r)
	if err != nil {
		return nil, a.refusal(ctx, err)
	}
	return &domainAnswer{answerOf(r), domainBody(d)}, nil
}

// prove asks for the TXT record of a domain.
func (a *api) prove(ctx context.Context, d *domain.Domain) error {
	if a.config.LookupTXT == nil {
		return problem(http.StatusConflict, codeNotProved, "This server asks no name server, so no domain can be verified.")
	}
	ctx, cancel := context.WithTimeout(ctx, proofTime)
	defer cancel()
	texts, err := a.config.LookupTXT(ctx, d.ProofName()+".") // the dot: no search list applies
	var missing *net.DNSError
	switch {
	case slices.Contains(texts, d.ProofValue()):
		return nil
	case err != nil && !(errors.As(err, &missing) && missing.IsNotFound):
		why := err.Error()
		if missing != nil {
			why = missing.Err // which does not name the host: no log says what is about a person
		}
		a.logger.WarnContext(ctx, "asking for the TXT record of a domain", "domain", d.ID, "error", why)
		return problem(http.StatusConflict, codeNotProved, fmt.Sprintf("The name servers of %s do not answer. Try again in a moment.", d.Host))
	}
	return problem(http.StatusConflict, codeNotProved, fmt.Sprintf("There is no TXT record %s with the text %s. A new record may take a while to be seen everywhere.", d.ProofName(), d.ProofValue()))
}

func (a *api) deleteDomain(ctx context.Context, in *changeInput) (*WriteAnswer, error) {
	return a.end(ctx, in, domain.DeleteDomain{ID: in.ID})
}

func domainBody(d *domain.Domain) Domain {
	b := Domain{DomainID: d.ID, UserID: d.UserID, Host: d.Host, ProofName: d.ProofName(), ProofValue: d.ProofValue(), Status: "unverified",
		CreatedAt: d.CreatedAt, UpdatedAt: d.UpdatedAt}
	if d.Verified() {
		b.Status, b.VerifiedAt = "verified", &d.VerifiedAt
	}
	return b
}

func (a *api) domain(ctx context.Context, id int64, min domain.Position) (projections.DomainRow, error) {
	row, found, err := one(ctx, a, min,
		func(ctx context.Context) (projections.DomainRow, bool, error) { return a.config.Reader.Domain(ctx, id) },
		func(ctx context.Context) (projections.DomainRow, bool, error) {
			state, at, err := a.fold(ctx, domain.OwnDomainStream(id))
			if d, ok := state.(*domain.Domain); ok && err == nil {
				return projections.DomainRow{Versions: at, Domain: *d}, true, nil
			}
			return projections.DomainRow{}, false, err
		})
	if err == nil && (!found || !row.Live()) {
		err = noDomain()
	}
	return row, err
}

func noDomain() error { return notFound(domain.CodeDomainNotFound, "There is no such domain.") }
