package ingress

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/tunnox-net/tunnox/basicauth"
)

// Login has the visitors of a site log in somewhere else.
type Login struct {
	// Callback is the path that visitors come back to.
	Callback string
	// Scope is what a cookie is for, at a host: with other rules it is another.
	Scope func(host string) string
	// Cookies verifies cookies.
	Cookies basicauth.Kept
	// Step makes a step at the provider. It fails with [ErrLoginDenied] for a visitor who
	// may not come in; other errors are for the log.
	Step func(ctx context.Context, step LoginStep) (LoginResult, error)
}

// LoginStep is one of the two of a login: without Code it begins, with Code it ends.
type LoginStep struct {
	Host     string // that the visitor has asked for
	Redirect string // the URL of Callback
	State    string
	Nonce    string
	Verifier string // RFC 7636
	Code     string
	Visitor  string // address
}

// LoginResult is what a step has come to: URL at the beginning, the rest at the end.
type LoginResult struct {
	URL    string
	User   string
	Cookie string // value, good until Ends
	Ends   time.Time
}

// Errors of a step.
var (
	ErrLoginDenied = errors.New("ingress: this visitor may not come in")
	ErrLoginBusy   = errors.New("ingress: too many visitors log in")
)

// identityHeader tells a service who has logged in. No visitor can send it to any service.
const identityHeader = "Tunnox-User"

const (
	loginTime  = 10 * time.Minute // to log in at the provider
	loginWait  = 20 * time.Second // for the provider's answer to a step
	maxLogin   = 3 << 10          // bytes of the cookie of a login, and of the path that it keeps
	stateStart = 8                // letters of the state that name the cookie of a login
)

var (
	mustSignIn   = page{http.StatusUnauthorized, "login_required", "This address is for visitors who have logged in. Open it in a browser."}
	loginDenied  = page{http.StatusForbidden, "login_denied", "You have logged in, and this address is not for you. Ask its owner to let you in."}
	loginStopped = page{http.StatusForbidden, "login_stopped", "You have not been logged in. Open the address again to try it once more."}
	loginExpired = page{http.StatusBadRequest, "login_expired", "This login has begun elsewhere, or took too long. Open the address again."}
	loginBroken  = page{http.StatusBadGateway, "login_failed", "The place where visitors of this address log in gave no good answer. Try again soon."}
)

// pendingLogin is what a visitor's cookie says of a login that has begun. It needs no
// signature: whoever can set a cookie of this host for a visitor is the host.
type pendingLogin struct {
	State    string `json:"s"`
	Nonce    string `json:"n"`
	Verifier string `json:"v"`
	Path     string `json:"p"` // that the visitor wanted, with the query
}

// signIn lets a visitor in who has logged in, or answers: with the way to the provider,
// with the end of a login, or with a page.
func (s *Server) signIn(w http.ResponseWriter, in *http.Request, site Site, host string, ours map[string]string) (user string, ok bool) {
	login, secure := site.Access.Login, scheme(in, s.config.Trusted) == "https"
	if in.URL.Path == login.Callback {
		s.finishLogin(w, in, site, host, ours)
		return "", false
	}
	pass, signature, ok := basicauth.ReadPass(ours[accessCookie(site.Mapping, secure)], login.Scope(host), site.Mapping)
	if ok && time.Now().Before(pass.Ends) && login.Cookies.Verify(pass, signature) {
		return pass.Username, true
	}
	if !navigates(in) {
		mustSignIn.write(w, in)
		return "", false
	}
	s.beginLogin(w, in, site, host)
	return "", false
}

// navigates reports whether a browser asks for a page, which it can be led away from.
func navigates(in *http.Request) bool {
	if in.Method != http.MethodGet || isWebSocket(in) {
		return false
	}
	if mode := in.Header.Get("Sec-Fetch-Mode"); mode != "" {
		return mode == "navigate"
	}
	return accepted(in.Header.Values("Accept")) == "text/html"
}

// callback gives the URL that the provider sends a visitor back to. The host is the one
// that was asked for, with its port.
func (s *Server) callback(in *http.Request, login *Login) string {
	return scheme(in, s.config.Trusted) + "://" + strings.ToLower(in.Host) + login.Callback
}

func (s *Server) beginLogin(w http.ResponseWriter, in *http.Request, site Site, host string) {
	login := site.Access.Login
	begun := pendingLogin{State: drawn(), Nonce: drawn(), Verifier: drawn(), Path: in.URL.RequestURI()}
	if len(begun.Path) > maxLogin/2 || !strings.HasPrefix(begun.Path, "/") {
		begun.Path = "/"
	}
	text, err := json.Marshal(begun)
	if err != nil {
		s.fail(w, in, err)
		return
	}
	ctx, cancel := context.WithTimeout(in.Context(), loginWait)
	defer cancel()
	to, err := login.Step(ctx, LoginStep{Host: host, Redirect: s.callback(in, login), State: begun.State, Nonce: begun.Nonce, Verifier: begun.Verifier, Visitor: in.RemoteAddr})
	if err != nil {
		s.failLogin(w, in, site, err)
		return
	}
	s.setLogin(w, in, site, begun.State, base64.RawURLEncoding.EncodeToString(text), loginTime)
	leadTo(w, to.URL, http.StatusFound)
}

func (s *Server) finishLogin(w http.ResponseWriter, in *http.Request, site Site, host string, ours map[string]string) {
	login := site.Access.Login
	answer, err := url.ParseQuery(in.URL.RawQuery)
	state := answer.Get("state")
	if err != nil || in.Method != http.MethodGet || len(state) < stateStart {
		loginExpired.write(w, in)
		return
	}
	secure := scheme(in, s.config.Trusted) == "https"
	var begun pendingLogin
	text, err := base64.RawURLEncoding.DecodeString(ours[loginCookie(site.Mapping, state, secure)])
	if err != nil || len(text) > maxLogin || json.Unmarshal(text, &begun) != nil || begun.State == "" || begun.Nonce == "" ||
		subtle.ConstantTimeCompare([]byte(begun.State), []byte(state)) != 1 {
		loginExpired.write(w, in)
		return
	}
	s.setLogin(w, in, site, state, "", 0)
	code := answer.Get("code")
	if code == "" { // the visitor, or the provider, has said no
		loginStopped.write(w, in)
		return
	}
	ctx, cancel := context.WithTimeout(in.Context(), loginWait)
	defer cancel()
	done, err := login.Step(ctx, LoginStep{Host: host, Redirect: s.callback(in, login), State: state, Nonce: begun.Nonce, Verifier: begun.Verifier, Code: code, Visitor: in.RemoteAddr})
	if err != nil {
		s.failLogin(w, in, site, err)
		return
	}
	c := http.Cookie{Name: accessCookie(site.Mapping, secure), Value: done.Cookie, Path: "/", MaxAge: max(1, int(time.Until(done.Ends)/time.Second)),
		HttpOnly: true, Secure: secure, SameSite: http.SameSiteLaxMode}
	w.Header().Add("Set-Cookie", c.String())
	// With the host before it, no path leads to another host.
	path := begun.Path
	if !strings.HasPrefix(path, "/") || strings.ContainsAny(path, "\\\r\n") {
		path = "/"
	}
	leadTo(w, strings.TrimSuffix(s.callback(in, login), login.Callback)+path, http.StatusSeeOther)
}

func (s *Server) failLogin(w http.ResponseWriter, in *http.Request, site Site, err error) {
	switch {
	case errors.Is(err, ErrLoginDenied):
		loginDenied.write(w, in)
	case errors.Is(err, ErrLoginBusy):
		w.Header().Set("Retry-After", "1")
		cannotAskForNow.write(w, in)
	default:
		if in.Context().Err() == nil {
			s.config.Logger.Warn("a visitor cannot log in", "mapping", site.Mapping, "error", err)
		}
		loginBroken.write(w, in)
	}
}

// leadTo sends a visitor on. No cache keeps it, and the next place does not hear of this.
func leadTo(w http.ResponseWriter, to string, status int) {
	h := w.Header()
	h.Set("Location", to)
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer")
	w.WriteHeader(status)
}

// setLogin sets the cookie of a login, or takes it away.
func (s *Server) setLogin(w http.ResponseWriter, in *http.Request, site Site, state, value string, life time.Duration) {
	secure := scheme(in, s.config.Trusted) == "https"
	c := http.Cookie{Name: loginCookie(site.Mapping, state, secure), Value: value, Path: "/", MaxAge: int(life / time.Second), HttpOnly: true, Secure: secure,
		SameSite: http.SameSiteLaxMode}
	if value == "" {
		c.MaxAge = -1
	}
	w.Header().Add("Set-Cookie", c.String())
}

// loginCookie names the cookie of a login: visitors may begin several at once.
func loginCookie(mapping int64, state string, secure bool) string {
	name := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' {
			return r
		}
		return -1
	}, state[:stateStart])
	return accessCookie(mapping, secure) + "-" + name
}

// drawn draws a text that nobody guesses.
func drawn() string {
	var b [32]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// identify tells the service who the visitor is; "" = nobody has logged in. What a
// visitor has sent under the name goes, also as programs spell it that take _ for -.
func identify(out http.Header, user string) {
	for name := range out {
		if strings.EqualFold(strings.ReplaceAll(name, "_", "-"), identityHeader) {
			delete(out, name)
		}
	}
	if user != "" {
		out.Set(identityHeader, user)
	}
}
