package httpapi

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tunnox-net/tunnox/domain"
)

// NamedPlan is a plan of the configuration: a name for limits.
type NamedPlan struct {
	Name   string
	Limits domain.Limits
}

// Plan is a plan as the API shows it.
type Plan struct {
	Name string `json:"name" example:"pro"`
	domain.Limits
}

// Plans is the answer of GET /plans.
type Plans struct {
	Items []Plan `json:"items" nullable:"false" doc:"All plans, in the order of the configuration"`
}

// SetPlanBody is the body of PUT /users/{id}/plan.
type SetPlanBody struct {
	Plan string `json:"plan" minLength:"1" maxLength:"100" example:"pro"`
}

// SetRoleBody is the body of PUT /users/{id}/role.
type SetRoleBody struct {
	Role string `json:"role" enum:"admin,user" example:"user"`
}

func (a *api) registerPlans() {
	huma.Register(a.huma, operation(http.MethodGet, "/plans", "list-plans", "quotas", "List the plans of this server's configuration"), a.listPlans)
	huma.Register(a.huma, operation(http.MethodPut, "/users/{id}/plan", "set-user-plan", "quotas",
		"Put a user on a plan: its limits as they are now", errorsOfPut...), a.setPlan)
	huma.Register(a.huma, operation(http.MethodPut, "/users/{id}/role", "set-user-role", "users", "Set what a user may do at most", errorsOfPut...), a.setRole)
}

func (a *api) listPlans(context.Context, *struct{}) (*struct{ Body Plans }, error) {
	answer := &struct{ Body Plans }{Plans{Items: []Plan{}}}
	for _, p := range a.config.Plans {
		answer.Body.Items = append(answer.Body.Items, Plan{Name: p.Name, Limits: p.Limits})
	}
	return answer, nil
}

// plan gives the limits a plan stands for now.
func (a *api) plan(name string) (domain.Limits, error) {
	for _, p := range a.config.Plans {
		if p.Name == name {
			return p.Limits, nil
		}
	}
	return domain.Limits{}, invalid("body.plan", "is no plan of this server; see GET /api/v1/plans")
}

func (a *api) setPlan(ctx context.Context, in *struct {
	IDPath
	MatchHeader
	Body SetPlanBody
}) (*userAnswer, error) {
	limits, err := a.plan(in.Body.Plan)
	if err != nil {
		return nil, err
	}
	return a.userCommand(ctx, in.MatchHeader, in.Body, domain.SetUserPlan{ID: in.ID, Plan: in.Body.Plan, Limits: limits})
}

func (a *api) setRole(ctx context.Context, in *struct {
	IDPath
	MatchHeader
	Body SetRoleBody
}) (*userAnswer, error) {
	return a.userCommand(ctx, in.MatchHeader, in.Body, domain.SetUserRole{ID: in.ID, Role: domain.Role(in.Body.Role)})
}
