package ingress

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"net/http"
	"net/netip"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/tunnox-net/tunnox/basicauth"
	"github.com/tunnox-net/tunnox/netaddr"
)

// Access says who may come in at a site.
type Access struct {
	// Admits reports whether visitors may come from an address; nil = from all.
	Admits func(netip.Addr) bool
	// Logins are usernames and what is kept of their passwords (see package basicauth).
	// A visitor must have one of them; none = everybody may come in.
	Logins map[string]string
	// Login has visitors log in somewhere else; nil = they need not.
	Login *Login
}

const (
	// cookieLife is how long a visitor who gave a password need not give it again.
	cookieLife = 7 * 24 * time.Hour
	// Under TLS the name has the prefix that keeps other hosts from setting the cookie
	// (RFC 6265bis, section 4.1.3).
	cookieName       = "tunnox-access-"
	secureCookieName = "__Host-" + cookieName

	// To check a password that was not seen before costs 19 MiB and about 30 ms. So few
	// checks run at once, few wait, and one address may give few wrong passwords.
	mostDeriving        = 32 // that wait, or run
	deriveWait          = 5 * time.Second
	triesPerSecond      = 0.5
	triesAtOnce         = 10
	maxTriers           = 10_000 // addresses that are remembered for it
	maxKnown            = 10_000 // passwords and cookies that are remembered, of each kind
	maxCredentials      = 1024   // bytes of a username and password
	basicScheme         = "basic "
	authorizationHeader = "Authorization"
)

var (
	notAdmitted     = page{http.StatusForbidden, "access_denied", "Visitors may not come to this address from where you are."}
	mustLogIn       = page{http.StatusUnauthorized, "unauthorized", "This address needs a username and a password."}
	tooManyGuesses  = page{http.StatusTooManyRequests, "too_many_passwords", "Too many wrong passwords came from where you are. Try again in a moment."}
	cannotAskForNow = page{http.StatusServiceUnavailable, "too_many", "Too many visitors are giving passwords at once. Try again in a moment."}
)

// Errors of a password that was not looked at.
var (
	errGuesses = errors.New("ingress: too many wrong passwords from one address")
	errCrowd   = errors.New("ingress: too many passwords are waiting")
)

// digest stands for a password or a cookie in memory, under a key of this process.
type digest [sha256.Size]byte

// doorman finds out who visitors are.
type doorman struct {
	secret [32]byte
	turns  chan struct{} // who derives a key

	mu      sync.Mutex // guards all below
	waiting int
	right   map[digest]basicauth.Key
	wrong   map[digest]struct{}
	passes  map[digest]time.Time // cookies that were verified, and when they end
	triers  map[string]*rate.Limiter
}

func newDoorman() *doorman {
	d := &doorman{turns: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)), right: map[digest]basicauth.Key{}, wrong: map[digest]struct{}{},
		passes: map[digest]time.Time{}, triers: map[string]*rate.Limiter{}}
	rand.Read(d.secret[:]) // never fails (crypto/rand)
	return d
}

// visitorOf gives the address of the visitor: that of the connection or, when it is a
// trusted proxy's, the last one that no trusted proxy has.
func visitorOf(in *http.Request, trusted []netip.Prefix) netip.Addr {
	peer, err := netip.ParseAddrPort(in.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	addr := peer.Addr().Unmap().WithZone("")
	before := strings.Split(strings.Join(in.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(before) - 1; i >= 0 && contains(trusted, addr); i-- {
		next, err := netip.ParseAddr(strings.TrimSpace(before[i]))
		if err != nil {
			break // the proxy has not named an address
		}
		addr = next.Unmap().WithZone("")
	}
	return addr
}

// admit lets a visitor in, or answers with a page. It removes from the request what the
// service must not see: our cookies, and a password that is for us. user is the proved
// username of the visitor. cookie is the cookie that the answer must set, "" for none.
func (s *Server) admit(w http.ResponseWriter, in *http.Request, site Site, host string) (user, cookie string, ok bool) {
	visitor := visitorOf(in, s.config.Trusted)
	if site.Access.Admits != nil && !site.Access.Admits(visitor) {
		notAdmitted.write(w, in)
		return "", "", false
	}
	ours := takeCookies(in.Header)
	if site.Access.Login != nil {
		user, ok = s.signIn(w, in, site, host, ours)
		return user, "", ok
	}
	if len(site.Access.Logins) == 0 {
		return "", "", true
	}
	secure := scheme(in, s.config.Trusted) == "https"
	user = s.doorman.holder(ours[accessCookie(site.Mapping, secure)], host, site)
	name, password, given := credentials(in)
	kept, known := site.Access.Logins[name]
	if user != "" && (!given || !known) {
		return user, "", true // what stands in Authorization is for the service
	}
	if !given {
		unauthorized(w, in, host)
		return "", "", false
	}
	from := netaddr.Group(visitor.String())
	if user != "" {
		from = "" // a visitor who is in already does not guess
	}
	key, right, err := s.doorman.password(in.Context(), from, kept, name, password)
	switch {
	case errors.Is(err, errGuesses):
		w.Header().Set("Retry-After", strconv.Itoa(int(1/triesPerSecond)))
		tooManyGuesses.write(w, in)
		return "", "", false
	case err != nil:
		w.Header().Set("Retry-After", "1")
		cannotAskForNow.write(w, in)
		return "", "", false
	case right:
		in.Header.Del(authorizationHeader)
		if user == name {
			return user, "", true
		}
		return name, passCookie(key, basicauth.Pass{Host: host, Mapping: site.Mapping, Username: name, Ends: time.Now().Add(cookieLife)}, secure), true
	case user != "":
		return user, "", true // a password for the service, with a username that we have too
	}
	unauthorized(w, in, host)
	return "", "", false
}

func unauthorized(w http.ResponseWriter, in *http.Request, host string) {
	w.Header().Set("WWW-Authenticate", `Basic realm="`+host+`", charset="UTF-8"`)
	mustLogIn.write(w, in)
}

// credentials gives what a visitor proves themselves with (RFC 7617).
func credentials(in *http.Request) (name, password string, ok bool) {
	values := in.Header.Values(authorizationHeader)
	if len(values) != 1 || len(values[0]) > 2*maxCredentials || !strings.HasPrefix(strings.ToLower(values[0]), basicScheme) {
		return "", "", false
	}
	return in.BasicAuth()
}

func accessCookie(mapping int64, secure bool) string {
	if secure {
		return secureCookieName + strconv.FormatInt(mapping, 10)
	}
	return cookieName + strconv.FormatInt(mapping, 10)
}

// takeCookies takes our cookies off a request, and leaves the others as they were sent.
func takeCookies(h http.Header) (ours map[string]string) {
	lines := h.Values("Cookie")
	for i, line := range lines {
		if !strings.Contains(line, cookieName) {
			continue
		}
		var others []string
		for pair := range strings.SplitSeq(line, ";") {
			name, value, _ := strings.Cut(strings.TrimSpace(pair), "=")
			if !strings.HasPrefix(strings.TrimPrefix(name, "__Host-"), cookieName) {
				others = append(others, strings.TrimSpace(pair))
				continue
			}
			if ours == nil {
				ours = map[string]string{}
			}
			ours[name] = value
		}
		lines[i] = strings.Join(others, "; ")
	}
	if ours == nil {
		return nil
	}
	h.Del("Cookie")
	for _, line := range lines {
		if line != "" {
			h.Add("Cookie", line)
		}
	}
	return ours
}

// passCookie is the cookie that lets a visitor in from now on. Other sites' pages cannot
// use it for what they post or for a WebSocket (Lax).
func passCookie(key basicauth.Key, p basicauth.Pass, secure bool) string {
	c := http.Cookie{Name: accessCookie(p.Mapping, secure), Value: key.Sign(p), Path: "/", MaxAge: int(cookieLife / time.Second),
		HttpOnly: true, Secure: secure, SameSite: http.SameSiteLaxMode}
	return c.String()
}

// sum stands for texts in memory.
func (d *doorman) sum(texts ...string) (of digest) {
	h := hmac.New(sha256.New, d.secret[:])
	for _, text := range texts {
		h.Write([]byte(strconv.Itoa(len(text)) + " " + text))
	}
	h.Sum(of[:0])
	return of
}

// holder gives the username of a cookie that lets in here, "" for none.
func (d *doorman) holder(value, host string, site Site) string {
	if value == "" {
		return ""
	}
	pass, signature, ok := basicauth.ReadPass(value, host, site.Mapping)
	now := time.Now()
	if !ok || !now.Before(pass.Ends) {
		return ""
	}
	text := site.Access.Logins[pass.Username]
	of := d.sum("cookie", value, host, strconv.FormatInt(site.Mapping, 10), text)
	d.mu.Lock()
	_, seen := d.passes[of]
	d.mu.Unlock()
	if seen {
		return pass.Username
	}
	kept, ok := basicauth.Parse(text)
	if !ok || !kept.Verify(pass, signature) {
		return ""
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.passes) >= maxKnown {
		clear(d.passes) // they are verified again, which costs less than to sort them
	}
	d.passes[of] = pass.Ends
	return pass.Username
}

// password reports whether a password is right, and gives its key if it is. An unknown
// username takes as long as a known one, so that the time does not tell which ones exist.
// from is the address of the visitor, whose wrong passwords are counted; "" counts none.
func (d *doorman) password(ctx context.Context, from, kept, name, password string) (key basicauth.Key, right bool, err error) {
	of := d.sum("password", kept, name, password)
	d.mu.Lock()
	key, right = d.right[of]
	_, wrong := d.wrong[of]
	d.mu.Unlock()
	if right {
		return key, true, nil
	}
	guess := d.guess(from)
	if guess == nil || wrong {
		return key, false, map[bool]error{true: errGuesses}[guess == nil]
	}
	k, ok := basicauth.Parse(kept)
	if !ok {
		k = basicauth.Kept{Salt: make([]byte, 16)}
	}
	if key, err = d.derive(ctx, password, k.Salt); err != nil {
		guess.undo()
		return key, false, err
	}
	right = ok && k.Opens(key)
	d.mu.Lock()
	defer d.mu.Unlock()
	if !right {
		if len(d.wrong) >= maxKnown {
			clear(d.wrong)
		}
		d.wrong[of] = struct{}{}
		return key, false, nil
	}
	if len(d.right) >= maxKnown {
		clear(d.right)
	}
	d.right[of] = key
	guess.undo()
	return key, true, nil
}

// derive waits for its turn.
func (d *doorman) derive(ctx context.Context, password string, salt []byte) (key basicauth.Key, err error) {
	d.mu.Lock()
	crowd := d.waiting >= mostDeriving
	if !crowd {
		d.waiting++
	}
	d.mu.Unlock()
	if crowd {
		return key, errCrowd
	}
	defer func() {
		d.mu.Lock()
		d.waiting--
		d.mu.Unlock()
	}()
	ctx, cancel := context.WithTimeout(ctx, deriveWait)
	defer cancel()
	select {
	case d.turns <- struct{}{}:
	case <-ctx.Done():
		return key, errCrowd
	}
	defer func() { <-d.turns }()
	return basicauth.Derive(password, salt), nil
}

// guess takes one of the wrong passwords that an address may give. It is nil when the
// address has none left. After a right password it is given back.
func (d *doorman) guess(from string) *guess {
	if from == "" {
		return &guess{}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	l := d.triers[from]
	if l == nil {
		if len(d.triers) >= maxTriers {
			for address, other := range d.triers {
				if other.TokensAt(now) >= triesAtOnce {
					delete(d.triers, address)
				}
			}
		}
		if len(d.triers) >= maxTriers {
			return nil
		}
		l = rate.NewLimiter(triesPerSecond, triesAtOnce)
		d.triers[from] = l
	}
	r := l.ReserveN(now, 1)
	if !r.OK() || r.DelayFrom(now) > 0 {
		r.CancelAt(now)
		return nil
	}
	return &guess{limit: l}
}

// guess is one that was taken.
type guess struct{ limit *rate.Limiter }

func (g *guess) undo() {
	if g.limit != nil {
		g.limit.AllowN(time.Now(), -1) // a token more
	}
}
