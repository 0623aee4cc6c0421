package httpapi

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/tunnox-net/tunnox/netaddr"
)

// limits bound the rate of requests, for each known caller and for each address of
// unknown callers. A known caller does not pay for strangers with the same address, who
// may be behind the same proxy.
type limits struct {
	callers, strangers *buckets // nil = no limit
	policy             string
}

func newLimits(perSecond float64, burst int, rates Rates) limits {
	if perSecond <= 0 {
		return limits{}
	}
	burst = max(burst, 1)
	window := seconds(time.Duration(float64(burst) / perSecond * float64(time.Second)))
	return limits{callers: newBuckets(perSecond, burst).share(rates, "caller", burst/leasedPart),
		strangers: newBuckets(perSecond, burst).share(rates, "address", burst/leasedPart), policy: fmt.Sprintf(";q=%d;w=%d", burst, window)}
}

// admit counts a request and gives the remaining rate in the headers of
// draft-ietf-httpapi-ratelimit-headers-10. It gives a refusal above the rate.
func (l limits) admit(t *track, now time.Time, header http.Header) *Problem {
	if l.callers == nil {
		return nil
	}
	var g grant
	policy := "caller"
	if t.identity.Actor != "" {
		g = l.callers.take(t.identity.payer(), now)
	} else {
		policy = "address"
		g = l.strangers.take(netaddr.Group(t.source), now)
	}
	header.Set("RateLimit-Policy", `"`+policy+`"`+l.policy)
	header.Set("RateLimit", fmt.Sprintf(`"%s";r=%d;t=%d`, policy, g.left, seconds(max(g.full, g.wait))))
	if g.wait > 0 {
		return tooMany(g.wait, "Requests come faster than this server allows one "+policy+".")
	}
	return nil
}

// Probes have a rate of their own, far above what probers need: a refused probe would
// restart a server that is only busy, and /ready asks others.
const (
	probesPerSecond = 20
	probeBurst      = 100
)

// limited is the huma middleware that bounds the rate of requests. It runs after the
// authentication, which counts the strangers that it refuses.
func (a *api) limited(ctx huma.Context, next func(huma.Context)) {
	r, w := humago.Unwrap(ctx)
	if strings.HasPrefix(r.URL.Path, prefix+"/") {
		if p := a.limits.admit(tracked(ctx.Context()), a.tick(), w.Header()); p != nil {
			writeProblem(w, tracked(ctx.Context()), p)
			return
		}
	}
	if r.URL.Path == "/ready" {
		if g := a.probes.take(netaddr.Group(tracked(ctx.Context()).source), a.tick()); g.wait > 0 {
			writeProblem(w, tracked(ctx.Context()), tooMany(g.wait, "This address asks too often whether the server is ready."))
			return
		}
	}
	next(ctx)
}

// unknown is the answer to an unknown caller: 401, or 429 when too many requests came
// from the same address.
func (a *api) unknown(t *track, header http.Header) *Problem {
	if p := a.limits.admit(t, a.tick(), header); p != nil {
		return p
	}
	header.Set("WWW-Authenticate", challenge)
	return fromHuma(http.StatusUnauthorized, "", nil)
}
