package httpapi

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"golang.org/x/time/rate"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/projections"
)

// Key is the operator's key, kept as a hash, so that a dump of the memory or of a
// configuration does not show it. It may do everything.
type Key struct {
	Name string // who uses it; "key:<name>" is the actor of its commands
	Hash [sha256.Size]byte
}

// HashKey gives the hash of a key. Keys have 256 random bits, so that guessing is
// hopeless and a slow hash would cost only the server.
func HashKey(key string) [sha256.Size]byte { return sha256.Sum256([]byte(key)) }

// Identity is the caller of a request, with the reason why the request is allowed.
type Identity struct {
	Actor   string // "key:<name or id>" or "user:<id>"
	Allowed string // goes into the metadata of what they cause, for example "role:admin"
	UserID  int64  // 0 = the operator
	Role    domain.Role
	Scopes  []domain.Scope
	KeyID   int64 // of an API key, else 0
	LoginID int64 // of a login, else 0
}

// admin reports whether everything is theirs to see.
func (i Identity) admin() bool { return i.Role == domain.RoleAdmin }

// payer names the party whose rate is counted: a user with all keys and logins, or one
// key of the operator.
func (i Identity) payer() string {
	if i.UserID != 0 {
		return "user:" + formatID(i.UserID)
	}
	return i.Actor
}

// keyScheme is the name of the security scheme in the OpenAPI document. An
// operation that lists it is refused without a key.
const keyScheme = "apiKey"

var needsKey = []map[string][]string{{keyScheme: {}}}

// errNobody tells that a token is unknown or not valid any more.
var errNobody = errors.New("not a token of anybody")

const (
	// known is how long a token is believed without another look. A key that another
	// control plane revoked is refused after this time and the delay of its record.
	known = 250 * time.Millisecond
	// maxKnown bounds how many tokens are remembered.
	maxKnown = 10_000
	// A token without a row may be newer than the read models, so the log is asked. The
	// rate is bounded, because anybody can make up tokens.
	logAsksPerSecond = 20
)

// principals remembers the owner of a token for a moment, by the token's hash. Without
// it every request would cost two more round trips to Redis.
type principals struct {
	asks *rate.Limiter

	mu    sync.Mutex
	known map[[sha256.Size]byte]principal // guarded by mu
	moved domain.Position                 // guarded by mu; the last change of identities made here
	used  map[int64]time.Time             // guarded by mu; when each API key was used last, here
}

type principal struct {
	identity Identity
	until    time.Time
}

func newPrincipals() *principals {
	return &principals{asks: rate.NewLimiter(logAsksPerSecond, logAsksPerSecond),
		known: map[[sha256.Size]byte]principal{}, used: map[int64]time.Time{}}
}

// forget drops everything, because identities or rights changed at p.
func (p *principals) forget(at domain.Position) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.moved = max(p.moved, at)
	clear(p.known)
}

func (p *principals) get(token [sha256.Size]byte, now time.Time) (Identity, domain.Position, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	who, ok := p.known[token]
	if !ok || now.After(who.until) {
		return Identity{}, p.moved, false
	}
	p.use(who.identity.KeyID, now)
	return who.identity, p.moved, true
}

// put remembers a token, unless identities changed while it was looked up.
func (p *principals) put(token [sha256.Size]byte, who Identity, as domain.Position, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.use(who.KeyID, now)
	if p.moved != as {
		return
	}
	if len(p.known) >= maxKnown {
		clear(p.known)
	}
	p.known[token] = principal{who, now.Add(known)}
}

// use notes that a key was used. It needs mu.
func (p *principals) use(key int64, now time.Time) {
	if key != 0 {
		p.used[key] = now
	}
}

// lastUsed gives when a key was used last in this process.
func (p *principals) lastUsed(key int64) (time.Time, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	at, ok := p.used[key]
	return at, ok
}

// authenticate gives the owner of the request's token. It compares every key of the
// operator, in constant time over hashes, so that the time does not tell how much of a
// key was right. The error is errNobody, or tells that the answer is not known now.
func (a *api) authenticate(ctx context.Context, header string) (Identity, error) {
	scheme, token, _ := strings.Cut(header, " ")
	if token == "" || !strings.EqualFold(scheme, "Bearer") || len(token) > maxToken {
		return Identity{}, errNobody
	}
	given := HashKey(token)
	who, found := "", 0
	for _, k := range a.config.Keys {
		if subtle.ConstantTimeCompare(given[:], k.Hash[:]) == 1 {
			who, found = k.Name, 1
		}
	}
	if found == 1 {
		return Identity{Actor: "key:" + who, Allowed: "role:admin", Role: domain.RoleAdmin, Scopes: domain.RoleAdmin.Scopes()}, nil
	}
	now := time.Now()
	identity, moved, ok := a.principals.get(given, now)
	if ok {
		return identity, nil
	}
	a.caughtUp(ctx, moved)
	var err error
	switch {
	case strings.HasPrefix(token, keyPrefix):
		identity, err = a.ofKey(ctx, token, given)
	case strings.Count(token, ".") == 2:
		identity, err = a.ofAccessToken(ctx, token)
	default:
		err = errNobody
	}
	if err != nil {
		return Identity{}, err
	}
	a.principals.put(given, identity, moved, now)
	return identity, nil
}

// maxToken bounds the length of a token; ours are below 500 characters.
const maxToken = 4096

// caughtUp waits until the read models show the last change of identities that was made
// here, so that a key is refused right after its revocation.
func (a *api) caughtUp(ctx context.Context, moved domain.Position) {
	if moved == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, ownWait)
	defer cancel()
	_ = a.config.Reader.WaitRow(ctx, moved) // a late read model must not stop all callers
}

// ofKey gives the owner of an API key.
func (a *api) ofKey(ctx context.Context, token string, hash [sha256.Size]byte) (Identity, error) {
	id, ok := secretID(token, keyPrefix)
	if !ok {
		return Identity{}, errNobody
	}
	key, err := look(ctx, a, domain.KeyStream(id),
		func(ctx context.Context) (domain.Key, bool, error) {
			row, ok, err := a.config.Reader.Key(ctx, id)
			return row.Key, ok, err
		}, func(k *domain.Key) domain.Key { return *k })
	if err != nil {
		return Identity{}, err
	}
	if subtle.ConstantTimeCompare(hash[:], key.Hash) == 0 {
		a.lookInVain(ctx, domain.KeyStream(id))
		return Identity{}, errNobody
	}
	if !key.Live() || key.Expired(a.now()) {
		return Identity{}, errNobody
	}
	who := Identity{Actor: "key:" + formatID(id), KeyID: id, UserID: key.UserID, Scopes: key.Scopes, Role: domain.RoleAdmin, Allowed: "role:admin"}
	if key.UserID == 0 {
		return who, nil
	}
	u, err := a.accountOf(ctx, key.UserID)
	if err != nil {
		return Identity{}, err
	}
	if !u.Live() || u.Disabled {
		return Identity{}, errNobody
	}
	if u.Role != domain.RoleAdmin || !slices.Contains(key.Scopes, domain.ScopeAdmin) {
		who.Role = domain.RoleUser
	}
	who.Allowed = "role:" + string(who.Role) + " user:" + formatID(key.UserID)
	return who, nil
}

// ofAccessToken gives the user of a login's access token. The token names the login;
// whether the login is valid is looked up.
func (a *api) ofAccessToken(ctx context.Context, token string) (Identity, error) {
	userID, loginID, err := a.tokens.verify(token, a.now())
	if err != nil {
		return Identity{}, errNobody
	}
	login, err := look(ctx, a, domain.LoginStream(loginID),
		func(ctx context.Context) (domain.Login, bool, error) {
			row, ok, err := a.config.Reader.Login(ctx, loginID)
			return row.Login, ok, err
		}, func(l *domain.Login) domain.Login { return *l })
	if err != nil {
		return Identity{}, err
	}
	u, err := a.accountOf(ctx, userID)
	if err != nil {
		return Identity{}, err
	}
	if login.UserID != userID || !login.Good(&u, a.now()) {
		return Identity{}, errNobody
	}
	return Identity{Actor: "user:" + formatID(userID), Allowed: "role:" + string(u.Role), UserID: userID, LoginID: loginID,
		Role: u.Role, Scopes: u.Role.Scopes()}, nil
}

func (a *api) accountOf(ctx context.Context, id int64) (domain.User, error) {
	return look(ctx, a, domain.UserStream(id),
		func(ctx context.Context) (domain.User, bool, error) {
			row, ok, err := a.config.Reader.User(ctx, id)
			return row.User, ok, err
		}, func(u *domain.User) domain.User { return *u })
}

// look reads a row. A row that is missing may be too new for the read models here, so
// the log is asked, a few times a second at most.
func look[S any, A domain.Aggregate](ctx context.Context, a *api, stream domain.StreamID,
	row func(context.Context) (S, bool, error), state func(A) S) (S, error) {
	s, ok, err := row(ctx)
	if err == nil && ok {
		return s, nil
	}
	if err == nil && !a.principals.asks.Allow() {
		return s, errNobody
	}
	folded, _, err := a.fold(ctx, stream)
	if err != nil {
		return s, a.unreadable(ctx, err)
	}
	aggregate, ok := folded.(A)
	if !ok || !aggregate.Exists() {
		return s, errNobody
	}
	return state(aggregate), nil
}

// lookInVain does for a wrong secret what look does for a row that is not there, so that
// the time does not tell which ids there are.
func (a *api) lookInVain(ctx context.Context, stream domain.StreamID) {
	if a.principals.asks.Allow() {
		_, _, _ = a.fold(ctx, stream) // nothing depends on it
	}
}

// requireIdentity is the huma middleware that refuses requests that the rules do not
// allow. It reads the matched operation and not the path, so that routing and
// authorisation cannot differ.
func (a *api) requireIdentity(ctx huma.Context, next func(huma.Context)) {
	rule := ruleOf(ctx.Operation().OperationID)
	if rule.open {
		next(ctx)
		return
	}
	identity, err := a.authenticate(ctx.Context(), ctx.Header("Authorization"))
	if err == nil {
		tracked(ctx.Context()).identity = identity
		err = a.authorise(ctx, rule, identity)
	}
	if err == nil {
		next(ctx)
		return
	}
	p, ok := errors.AsType[*Problem](err)
	if !ok {
		_, w := humago.Unwrap(ctx)
		p = a.unknown(tracked(ctx.Context()), w.Header())
	}
	a.refuse(ctx, p)
}

// refuse answers from a middleware.
func (a *api) refuse(ctx huma.Context, p *Problem) {
	t := tracked(ctx.Context())
	p.RequestID, p.Instance = t.id, t.path
	for name, values := range p.GetHeaders() {
		ctx.SetHeader(name, values[0])
	}
	ctx.SetHeader("Content-Type", p.ContentType(""))
	ctx.SetStatus(p.Status)
	// The error is that of a write to a connection that is gone.
	_ = jsonFormat.Marshal(ctx.BodyWriter(), p)
}

// challenge names the scheme, as a 401 must (RFC 9110 §11.6.1, RFC 6750 §3).
const challenge = `Bearer realm="tunnox"`

// identity gives the caller, in a handler behind requireIdentity.
func identity(ctx context.Context) Identity { return tracked(ctx).identity }

// noted drops remembered identities when a command may have changed them.
func (a *api) noted(r domain.Receipt) {
	switch r.Subject.Category() {
	case domain.CategoryUser, domain.CategoryKey, domain.CategoryLogin:
		a.principals.forget(r.Position)
	}
}

var _ Reader = (*projections.Reader)(nil)
