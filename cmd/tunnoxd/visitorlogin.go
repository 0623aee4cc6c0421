package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/tunnox-net/tunnox/control"
	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/ingress"
	"github.com/tunnox-net/tunnox/oidcauth"
	"github.com/tunnox-net/tunnox/projections"
	"github.com/tunnox-net/tunnox/wait"
	"github.com/tunnox-net/tunnox/webhook"
	"github.com/tunnox-net/tunnox/wholefile"
)

// visitorKeyFile is the key that seals the client secrets of mappings and signs the
// cookies of visitors who have logged in; 0600.
const visitorKeyFile = "visitor-key"

// loadVisitorKey reads the key from the data directory, or makes one there. In a cluster
// the directory has the cluster's key by now.
func loadVisitorKey(dir *dataDir) (oidcauth.Key, error) {
	path := dir.file(visitorKeyFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		text = oidcauth.NewKey()
		err = wholefile.Write(path, text, 0o600)
	}
	if err != nil {
		return oidcauth.Key{}, err
	}
	key, err := oidcauth.ParseKey(text)
	if err != nil {
		return oidcauth.Key{}, fmt.Errorf("%s: %w", path, err)
	}
	return key, nil
}

// providerPatience bounds the connection to a provider, its handshake, and its answer.
const providerPatience = 5 * time.Second

// startVisitorLogins prepares logins of visitors. Users name the providers, so the server
// reaches those that webhooks may reach.
func (p *process) startVisitorLogins(cp *controlPlane, key oidcauth.Key) error {
	networks, err := webhook.ParseNetworks(p.cfg.WebhookNetworks)
	if err != nil {
		return err // the settings were checked
	}
	dialer := &net.Dialer{Timeout: providerPatience, Control: networks.Guard}
	transport := &http.Transport{DialContext: dialer.DialContext, TLSHandshakeTimeout: providerPatience, ResponseHeaderTimeout: providerPatience,
		ForceAttemptHTTP2: true, MaxIdleConns: 100, MaxIdleConnsPerHost: 2, IdleConnTimeout: 30 * time.Second, MaxResponseHeaderBytes: 64 << 10}
	desk := oidcauth.NewDesk(key, &http.Client{Transport: transport}, p.cfg.WebhookHTTP)
	p.atEnd("logins of visitors", func(context.Context) error { desk.Close(); return nil })
	cp.logins = &loginDesk{desk: desk, reader: cp.reader, log: p.log.With("part", "logins")}
	return nil
}

// loginDesk has visitors log in at the providers of mappings.
type loginDesk struct {
	desk   *oidcauth.Desk
	reader *projections.Reader
	log    *slog.Logger
}

// VisitorLogin implements [control.Logins].
func (d *loginDesk) VisitorLogin(ctx context.Context, step control.LoginStep) (control.LoginResult, error) {
	failed := &domain.Error{Code: control.CodeLoginFailed, Message: "The provider could not be asked. The control plane's log has the reason."}
	m, ok, err := d.reader.Mapping(ctx, step.Mapping)
	if err != nil {
		return control.LoginResult{}, err
	}
	if !ok || !m.Active() || m.Access == nil || m.Access.OIDC == nil {
		return control.LoginResult{}, failed
	}
	result, err := d.desk.Do(ctx, loginSettings(m.Access.OIDC), oidcauth.Step{Mapping: step.Mapping, Host: step.Host, Redirect: step.Redirect,
		State: step.State, Nonce: step.Nonce, Verifier: step.Verifier, Code: step.Code})
	switch {
	case errors.Is(err, oidcauth.ErrPending):
		return control.LoginResult{}, control.ErrLoginPending
	case errors.Is(err, oidcauth.ErrDenied):
		return control.LoginResult{}, &domain.Error{Code: control.CodeLoginDenied, Message: "This visitor may not come in."}
	case err != nil:
		d.log.Warn("a visitor could not log in", "mapping", step.Mapping, "error", err)
		return control.LoginResult{}, failed
	}
	return control.LoginResult{URL: result.URL, User: result.User, Cookie: result.Cookie, Ends: result.Ends}, nil
}

func loginSettings(o *domain.OIDCAccess) oidcauth.Settings {
	return oidcauth.Settings{Issuer: o.Issuer, ClientID: o.ClientID, Secret: o.ClientSecret, Emails: o.Emails, Domains: o.Domains, Groups: o.Groups}
}

// loginPath is where visitors come back to, below the path of the mapping.
const loginPath = "/.tunnox/login"

// askAgainEvery is how often it is asked whether a provider has answered.
const askAgainEvery = 100 * time.Millisecond

// login gives how visitors of a mapping log in; nil: they need not. A rule that cannot be
// read lets nobody in.
func (h *hostServer) login(m *domain.Mapping) *ingress.Login {
	if m.Access == nil || m.Access.OIDC == nil {
		return nil
	}
	settings := loginSettings(m.Access.OIDC)
	cookies, _ := oidcauth.Cookies(settings.Secret) // what cannot be read verifies nothing
	id := m.ID
	return &ingress.Login{Callback: strings.TrimSuffix(m.PublicPath, "/") + loginPath, Scope: settings.Scope, Cookies: cookies,
		Step: func(ctx context.Context, step ingress.LoginStep) (ingress.LoginResult, error) {
			return h.loginStep(ctx, id, step)
		}}
}

// loginStep makes a step at the control plane. Strangers may ask for it, so that steps
// are counted.
func (h *hostServer) loginStep(ctx context.Context, mapping int64, step ingress.LoginStep) (ingress.LoginResult, error) {
	if h.logins == nil {
		return ingress.LoginResult{}, errors.New("there is no control plane that logs visitors in")
	}
	if !h.f.MayAsk(step.Visitor) {
		return ingress.LoginResult{}, ingress.ErrLoginBusy
	}
	for {
		result, err := h.logins.VisitorLogin(ctx, control.LoginStep{Mapping: mapping, Host: step.Host, Redirect: step.Redirect, State: step.State,
			Nonce: step.Nonce, Verifier: step.Verifier, Code: step.Code})
		switch {
		case errors.Is(err, control.ErrLoginPending) && wait.For(ctx, askAgainEvery):
		case domain.CodeOf(err) == control.CodeLoginDenied:
			return ingress.LoginResult{}, ingress.ErrLoginDenied
		default:
			return ingress.LoginResult{URL: result.URL, User: result.User, Cookie: result.Cookie, Ends: result.Ends}, err
		}
	}
}
