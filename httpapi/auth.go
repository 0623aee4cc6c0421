package httpapi

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

// Key is an API key as this package knows it: by its hash, so that a dump of
// our memory or of a configuration gives no key away.
type Key struct {
	Name string // who uses it; "key:<name>" is the actor of its commands
	Hash [sha256.Size]byte
}

// HashKey gives the hash under which a key is known.
func HashKey(key string) [sha256.Size]byte { return sha256.Sum256([]byte(key)) }

// Identity is who asks, and why they may.
type Identity struct {
	Actor   string // "key:<name>"
	Allowed string // goes into the metadata of what they cause, for example "role:admin"
}

// keyScheme is the name of the security scheme in the OpenAPI document. An
// operation that lists it is refused without a key.
const keyScheme = "apiKey"

var needsKey = []map[string][]string{{keyScheme: {}}}

// authenticate tells whose key the request carries. Every known key is compared,
// in constant time over hashes, so that the time tells neither how much of a
// key was right nor which one it is near.
func (a *api) authenticate(header string) (Identity, bool) {
	scheme, token, _ := strings.Cut(header, " ")
	given := HashKey(token)
	var who string
	found := 0
	for _, k := range a.config.Keys {
		if subtle.ConstantTimeCompare(given[:], k.Hash[:]) == 1 {
			who, found = k.Name, 1
		}
	}
	if found == 0 || token == "" || !strings.EqualFold(scheme, "Bearer") {
		return Identity{}, false
	}
	return Identity{Actor: "key:" + who, Allowed: "role:admin"}, true
}

// requireKey is the huma middleware that refuses operations that need a key. It
// reads the matched operation and not the path, so that what is routed and what
// is authorised cannot be two things.
func (a *api) requireKey(ctx huma.Context, next func(huma.Context)) {
	if len(ctx.Operation().Security) == 0 {
		next(ctx)
		return
	}
	identity, ok := a.authenticate(ctx.Header("Authorization"))
	if !ok {
		ctx.SetHeader("WWW-Authenticate", challenge)
		// The error is that of a write to a connection that is gone.
		_ = huma.WriteErr(a.huma, ctx, http.StatusUnauthorized, "")
		return
	}
	tracked(ctx.Context()).identity = identity
	next(ctx)
}

// challenge names the scheme, as a 401 must (RFC 9110 §11.6.1, RFC 6750 §3).
const challenge = `Bearer realm="tunnox"`

// identity gives who asks, in a handler behind requireKey.
func identity(ctx context.Context) Identity { return tracked(ctx).identity }
