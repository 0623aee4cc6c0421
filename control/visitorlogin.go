package control

import (
	"context"
	"errors"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tunnox-net/tunnox/control/controlpb"
	"github.com/tunnox-net/tunnox/domain"
)

// LoginStep is one of the two steps of a visitor's login at the OpenID provider of a
// mapping: without Code it begins, with Code it ends.
type LoginStep struct {
	Mapping  int64
	Host     string // that the visitor has asked for
	Redirect string // the URL that the provider sends the visitor back to
	State    string
	Nonce    string
	Verifier string // RFC 7636
	Code     string
}

// LoginResult is what a step has come to: URL at the beginning, the rest at the end.
type LoginResult struct {
	URL    string
	User   string
	Cookie string // value, good until Ends
	Ends   time.Time
}

// Logins has visitors log in. It fails with [ErrLoginPending] when ctx ends before the
// provider answers, and with a refusal for a visitor who may not come in.
type Logins interface {
	VisitorLogin(ctx context.Context, step LoginStep) (LoginResult, error)
}

// ErrLoginPending: the provider has not answered yet. Ask again in a moment.
var ErrLoginPending = errors.New("control: the provider has not answered yet")

// Refusals of logins.
const (
	CodeLoginDenied domain.Code = "login_denied" // the visitor may not come in
	CodeLoginFailed domain.Code = "login_failed" // the provider cannot be asked, or gives no good answer
)

// maxLoginText bounds each text of a step, in bytes.
const maxLoginText = 4096

// VisitorLogin makes a step for a visitor of the calling node. A provider may take longer
// than a call: that is an answer, and no sign that the control plane is away.
func (s *state) VisitorLogin(ctx context.Context, in *controlpb.VisitorLoginStep) (*controlpb.VisitorLoginAnswer, error) {
	if s.config.Logins == nil {
		return nil, &domain.Error{Code: CodeLoginFailed, Message: "This control plane has no logins of visitors."}
	}
	step := LoginStep{in.GetMappingId(), in.GetHost(), in.GetRedirect(), in.GetState(), in.GetNonce(), in.GetVerifier(), in.GetCode()}
	for _, text := range []string{step.Host, step.Redirect, step.State, step.Nonce, step.Verifier, step.Code} {
		if len(text) > maxLoginText {
			return nil, invalid("step", "has a text that is too long")
		}
	}
	ctx, cancel := context.WithTimeout(ctx, orderWait)
	defer cancel()
	result, err := s.config.Logins.VisitorLogin(ctx, step)
	if errors.Is(err, ErrLoginPending) {
		return &controlpb.VisitorLoginAnswer{Pending: true}, nil
	}
	if err != nil {
		return nil, err
	}
	return &controlpb.VisitorLoginAnswer{Url: result.URL, User: result.User, Cookie: result.Cookie, Ends: timestamppb.New(result.Ends)}, nil
}

// VisitorLogin makes a step of a visitor's login.
func (c *Client) VisitorLogin(ctx context.Context, step LoginStep) (result LoginResult, err error) {
	pending := false
	err = c.do(ctx, "VisitorLogin", func(ctx context.Context) error {
		answer, err := c.state.VisitorLogin(ctx, &controlpb.VisitorLoginStep{MappingId: step.Mapping, Host: step.Host, Redirect: step.Redirect,
			State: step.State, Nonce: step.Nonce, Verifier: step.Verifier, Code: step.Code})
		pending = answer.GetPending()
		result = LoginResult{URL: answer.GetUrl(), User: answer.GetUser(), Cookie: answer.GetCookie(), Ends: answer.GetEnds().AsTime()}
		return err
	})
	if err == nil && pending {
		err = ErrLoginPending
	}
	return result, err
}
