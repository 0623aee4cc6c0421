package oidcauth

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/tunnox-net/tunnox/basicauth"
)

// Errors of a login. Others are for the log: the provider cannot be reached, or answers
// what it should not.
var (
	// ErrPending: the provider has not answered yet. Ask again in a moment.
	ErrPending = errors.New("oidcauth: the provider has not answered yet")
	// ErrDenied: the visitor has logged in, and may not come in.
	ErrDenied = errors.New("oidcauth: this visitor may not come in")
)

const (
	// Life is how long a visitor who has logged in need not do it again.
	Life = 12 * time.Hour

	stepTime     = 15 * time.Second // of what a provider is asked for one step
	keptStep     = time.Minute      // its result, for whoever asks again
	maxSteps     = 1024             // at once, and kept
	maxOfMapping = 16               // at once
	providerLife = time.Hour        // what a provider says of itself
	maxProviders = 1024
	maxAnswer    = 1 << 20 // bytes of a provider's answer
	maxUser      = 255     // bytes
)

// Settings are those of a mapping.
type Settings struct {
	Issuer   string
	ClientID string
	Secret   string   // sealed
	Emails   []string // who may come in: these addresses,
	Domains  []string // all addresses of these domains, * for every visitor,
	Groups   []string // or members of these groups
}

// Scope is what a cookie is for: a host under some settings. With others a visitor logs
// in again.
func (s Settings) Scope(host string) string {
	rules, err := json.Marshal([]any{s.Issuer, s.ClientID, s.Emails, s.Domains, s.Groups})
	if err != nil {
		return "" // texts can be written
	}
	sum := sha256.Sum256(rules)
	return host + " " + hex.EncodeToString(sum[:16])
}

// Step is one of the two of a login: without Code it begins, with Code it ends.
type Step struct {
	Mapping  int64
	Host     string
	Redirect string // the URL that the provider sends the visitor back to
	State    string
	Nonce    string
	Verifier string // of PKCE
	Code     string
}

// Result of a step: URL at its beginning, and the rest at its end.
type Result struct {
	URL    string // of the provider, for the visitor
	User   string
	Cookie string // value, signed, until Ends
	Ends   time.Time
}

// Desk makes the steps. What a provider takes its time for goes on while nobody waits.
type Desk struct {
	key      Key
	client   *http.Client
	insecure bool
	life     context.Context
	end      context.CancelFunc
	running  sync.WaitGroup

	mu        sync.Mutex
	steps     map[Step]*step            // guarded by mu
	providers map[string]*knownProvider // by issuer; guarded by mu
}

type step struct {
	done  chan struct{}
	until time.Time // zero while it is made
	Result
	err error
}

type knownProvider struct {
	*oidc.Provider
	until time.Time
}

// NewDesk makes a desk that reaches providers with the client. insecure lets them be
// reached over http.
func NewDesk(key Key, client *http.Client, insecure bool) *Desk {
	bounded := *client
	bounded.Transport = boundedAnswers{client.Transport}
	d := &Desk{key: key, client: &bounded, insecure: insecure, steps: map[Step]*step{}, providers: map[string]*knownProvider{}}
	d.life, d.end = context.WithCancel(context.Background())
	return d
}

// Close ends the steps that are under way.
func (d *Desk) Close() {
	d.end()
	d.running.Wait()
	d.client.CloseIdleConnections()
}

// boundedAnswers cuts off answers that would fill memory.
type boundedAnswers struct{ http.RoundTripper }

func (b boundedAnswers) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := b.RoundTripper.RoundTrip(r)
	if err == nil {
		res.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(res.Body, maxAnswer), res.Body}
	}
	return res, err
}

// Do makes a step, or gives its result when it was made a moment ago: a code works once.
// After ctx ends it goes on, and the error is [ErrPending].
func (d *Desk) Do(ctx context.Context, settings Settings, want Step) (Result, error) {
	s, err := d.step(settings, want, time.Now())
	if err != nil {
		return Result{}, err
	}
	select {
	case <-s.done:
		return s.Result, s.err
	case <-ctx.Done():
		return Result{}, ErrPending
	}
}

func (d *Desk) step(settings Settings, want Step, now time.Time) (*step, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s := d.steps[want]; s != nil {
		return s, nil
	}
	under := 0
	for of, s := range d.steps {
		switch {
		case s.until.IsZero() && of.Mapping == want.Mapping:
			under++
		case !s.until.IsZero() && now.After(s.until):
			delete(d.steps, of)
		}
	}
	if d.life.Err() != nil || len(d.steps) >= maxSteps || under >= maxOfMapping {
		return nil, errors.New("oidcauth: too many visitors log in at once")
	}
	s := &step{done: make(chan struct{})}
	d.steps[want] = s
	d.running.Go(func() {
		ctx, cancel := context.WithTimeout(d.life, stepTime)
		defer cancel()
		result, err := d.make(ctx, settings, want)
		d.mu.Lock()
		defer d.mu.Unlock()
		s.Result, s.err, s.until = result, err, time.Now().Add(keptStep)
		if want.Code == "" && err != nil {
			delete(d.steps, want) // the next visitor may have more luck
		}
		close(s.done)
	})
	return s, nil
}

func (d *Desk) make(ctx context.Context, settings Settings, want Step) (Result, error) {
	ctx = oidc.ClientContext(ctx, d.client)
	provider, err := d.provider(ctx, settings.Issuer)
	if err != nil {
		return Result{}, err
	}
	config := oauth2.Config{ClientID: settings.ClientID, Endpoint: provider.Endpoint(), RedirectURL: want.Redirect, Scopes: []string{oidc.ScopeOpenID, "email", "profile"}}
	if len(settings.Groups) > 0 && slices.Contains(scopesOf(provider), "groups") {
		config.Scopes = append(config.Scopes, "groups")
	}
	if want.Code == "" {
		return Result{URL: config.AuthCodeURL(want.State, oidc.Nonce(want.Nonce), oauth2.S256ChallengeOption(want.Verifier))}, nil
	}
	if config.ClientSecret, err = d.key.open(settings.Secret, settings.Issuer, settings.ClientID); err != nil {
		return Result{}, err
	}
	tokens, err := config.Exchange(ctx, want.Code, oauth2.VerifierOption(want.Verifier))
	if err != nil {
		return Result{}, fmt.Errorf("exchange the code at %s: %w", settings.Issuer, withoutBody(err))
	}
	raw, ok := tokens.Extra("id_token").(string)
	if !ok {
		return Result{}, fmt.Errorf("the provider %s gave no id token", settings.Issuer)
	}
	token, err := provider.Verifier(&oidc.Config{ClientID: settings.ClientID}).Verify(ctx, raw)
	if err != nil {
		return Result{}, fmt.Errorf("verify the id token of %s: %w", settings.Issuer, err)
	}
	if want.Nonce == "" || token.Nonce != want.Nonce {
		return Result{}, fmt.Errorf("the id token of %s is for another login", settings.Issuer)
	}
	user, err := settings.admit(token)
	if err != nil {
		return Result{}, err
	}
	ends := time.Now().Add(Life)
	cookie := d.key.signer(settings.Issuer, settings.ClientID).Sign(basicauth.Pass{Host: settings.Scope(want.Host), Mapping: want.Mapping, Username: user, Ends: ends})
	return Result{User: user, Cookie: cookie, Ends: ends}, nil
}

// withoutBody keeps the answer of a provider, which may repeat what it was sent, out of
// the log.
func withoutBody(err error) error {
	var refused *oauth2.RetrieveError
	if errors.As(err, &refused) && refused.Response != nil {
		return fmt.Errorf("it answers %s", refused.Response.Status)
	}
	return err
}

// provider asks a provider for what it says of itself, now and then.
func (d *Desk) provider(ctx context.Context, issuer string) (*oidc.Provider, error) {
	now := time.Now()
	d.mu.Lock()
	known := d.providers[issuer]
	d.mu.Unlock()
	if known != nil && now.Before(known.until) {
		return known.Provider, nil
	}
	if err := d.reachable(issuer); err != nil {
		return nil, err
	}
	provider, err := oidc.NewProvider(ctx, issuer)
	if err != nil {
		return nil, fmt.Errorf("ask the provider %s: %w", issuer, err)
	}
	var also struct {
		Keys string `json:"jwks_uri"`
	}
	if err := provider.Claims(&also); err != nil {
		return nil, fmt.Errorf("ask the provider %s: %w", issuer, err)
	}
	endpoint := provider.Endpoint()
	for _, place := range []string{endpoint.AuthURL, endpoint.TokenURL, also.Keys} {
		if err := d.reachable(place); err != nil {
			return nil, fmt.Errorf("ask the provider %s: %w", issuer, err)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.providers) >= maxProviders {
		clear(d.providers) // they are asked again
	}
	d.providers[issuer] = &knownProvider{provider, now.Add(providerLife)}
	return provider, nil
}

// reachable refuses what is no URL over https.
func (d *Desk) reachable(place string) error {
	u, err := url.Parse(place)
	if err != nil || u.Host == "" || u.User != nil || u.Scheme != "https" && !(d.insecure && u.Scheme == "http") {
		return errors.New("a URL of it does not begin with https://")
	}
	return nil
}

func scopesOf(provider *oidc.Provider) []string {
	var also struct {
		Scopes []string `json:"scopes_supported"`
	}
	if provider.Claims(&also) != nil {
		return nil
	}
	return also.Scopes
}

// claims are what an id token may say.
type claims struct {
	Email    string `json:"email"`
	Verified any    `json:"email_verified"` // some providers write a text
	Groups   any    `json:"groups"`
}

// admit gives the name of a visitor who may come in: the e-mail address, if the provider
// has verified it, else the subject.
func (s Settings) admit(token *oidc.IDToken) (string, error) {
	var c claims
	if err := token.Claims(&c); err != nil {
		return "", fmt.Errorf("read the id token: %w", err)
	}
	email := ""
	if c.Verified == true || c.Verified == "true" {
		email = strings.ToLower(c.Email)
	}
	user := email
	if user == "" {
		user = token.Subject
	}
	if user == "" || len(user) > maxUser || strings.ContainsFunc(user, unicode.IsControl) {
		return "", errors.New("the id token names nobody who can be told to a service")
	}
	_, domain, _ := strings.Cut(email, "@")
	switch same := func(of string) func(string) bool {
		return func(s string) bool { return strings.EqualFold(s, of) }
	}; {
	case slices.Contains(s.Domains, "*"):
	case email != "" && slices.ContainsFunc(s.Emails, same(email)):
	case domain != "" && strings.Count(email, "@") == 1 && slices.ContainsFunc(s.Domains, same(domain)):
	case s.inGroup(c.Groups):
	default:
		return "", ErrDenied
	}
	return user, nil
}

func (s Settings) inGroup(groups any) bool {
	list, ok := groups.([]any)
	if name, one := groups.(string); one {
		list, ok = []any{name}, true
	}
	return ok && slices.ContainsFunc(list, func(g any) bool {
		name, ok := g.(string)
		return ok && slices.Contains(s.Groups, name)
	})
}
