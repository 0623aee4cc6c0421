package control

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/domain"
)

// porter lets ann in, and thinks about slow.
type porter struct{}

func (porter) VisitorLogin(ctx context.Context, step LoginStep) (LoginResult, error) {
	switch step.State {
	case "slow":
		<-ctx.Done()
		return LoginResult{}, ErrLoginPending
	case "denied":
		return LoginResult{}, &domain.Error{Code: CodeLoginDenied, Message: "No."}
	}
	if step != (LoginStep{1001, "app.example.org", "https://app.example.org/back", "s", "n", "v", "c"}) {
		return LoginResult{}, errors.New("the step has changed on its way")
	}
	return LoginResult{URL: "https://login.example.org", User: "ann", Cookie: "1.2.3", Ends: time.Unix(1_900_000_000, 0).UTC()}, nil
}

// A step of a login crosses the wire. That a provider takes time is an answer, and no
// sign that the control plane is away.
func TestLoginsCrossTheWire(t *testing.T) {
	p := newPlane(t)
	s := p.serve("", func(c *ServerConfig) { c.Logins = porter{} })
	c := p.dial([]string{s.address}, func(c *Config) { c.CircuitFailures = 1 })
	if _, err := c.VisitorLogin(t.Context(), LoginStep{State: "slow"}); !errors.Is(err, ErrLoginPending) {
		t.Errorf("while the provider thinks: %v", err)
	}
	if _, err := c.VisitorLogin(t.Context(), LoginStep{State: "denied"}); domain.CodeOf(err) != CodeLoginDenied {
		t.Errorf("a visitor who may not come in: %v", err)
	}
	got, err := c.VisitorLogin(t.Context(), LoginStep{1001, "app.example.org", "https://app.example.org/back", "s", "n", "v", "c"})
	must(t, err)
	if got != (LoginResult{"https://login.example.org", "ann", "1.2.3", time.Unix(1_900_000_000, 0).UTC()}) {
		t.Errorf("the result is %+v", got)
	}
	if _, err := c.VisitorLogin(t.Context(), LoginStep{Code: string(make([]byte, maxLoginText+1))}); domain.CodeOf(err) != domain.CodeInvalid {
		t.Errorf("a code that is too long: %v", err)
	}
}
