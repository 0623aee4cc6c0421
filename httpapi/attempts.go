package httpapi

import (
	"net/http"
	"sync"
	"time"

	"github.com/tunnox-net/tunnox/netaddr"
)

// The bounds of guessing a secret such as a password. A person who mistypes does not
// notice them. An attacker has some 9,000 tries a day from one address, and some 15,000
// for one account from all addresses together.
const (
	pairPerSecond, pairBurst       = 0.1, 5      // one account from one address
	originPerSecond, originBurst   = 1.0 / 3, 20 // any account from one address
	accountPerSecond, accountBurst = 1.0 / 6, 50 // one account from strange addresses
	mostKnown                      = 100_000     // pairs that are remembered
)

// attempts bounds the guesses of secrets, for each address and for each account. An
// attacker must not lock the owner out: an address from which the account was entered
// before has a bound of its own, and attempts from other addresses do not count against
// it. The control planes of a cluster count together; while they cannot, each gives its
// part. What a server counts by itself is in memory, and a restart forgets it.
type attempts struct {
	pairs, origins, accounts *buckets
	rates                    Rates // nil: no other server counts

	mu    sync.Mutex
	known map[string]bool // guarded by mu; address and account that have succeeded
}

func newAttempts(rates Rates) *attempts {
	return &attempts{rates: rates, pairs: newBuckets(pairPerSecond, pairBurst).share(rates, "pair", 1),
		origins:  newBuckets(originPerSecond, originBurst).share(rates, "origin", 1),
		accounts: newBuckets(accountPerSecond, accountBurst).share(rates, "account", 1), known: map[string]bool{}}
}

func pairOf(remote, account string) string { return netaddr.Group(remote) + " " + account }

// begin counts an attempt on an account, by the name that the caller gave, from a
// network address (host:port). Call it before the secret is checked, also for accounts
// that do not exist. It gives 0, or the time to wait; then the attempt must be refused
// without a check of the secret.
func (a *attempts) begin(remote, account string, now time.Time) time.Duration {
	pair := pairOf(remote, account)
	if g := a.pairs.take(pair, now); g.wait > 0 {
		return g.wait
	}
	if a.knows(remote, account) {
		return 0
	}
	if g := a.origins.take(netaddr.Group(remote), now); g.wait > 0 {
		return g.wait
	}
	return a.accounts.take(account, now).wait
}

// knows tells whether the account was entered from this address before.
func (a *attempts) knows(remote, account string) bool {
	pair := pairOf(remote, account)
	a.mu.Lock()
	here := a.known[pair]
	a.mu.Unlock()
	if !here && knownToAny(a.rates, pair) {
		a.note(pair)
		return true
	}
	return here
}

// succeeded notes that the secret was right: the bound of this account from this address
// starts again, and attempts from other addresses do not count against it.
func (a *attempts) succeeded(remote, account string) {
	pair := pairOf(remote, account)
	a.pairs.fill(pair)
	tellAll(a.rates, pair)
	a.note(pair)
}

// note remembers a pair that has succeeded.
func (a *attempts) note(pair string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for other := range a.known {
		if len(a.known) < mostKnown {
			break
		}
		delete(a.known, other)
	}
	a.known[pair] = true
}

// tooMany is the answer to an attempt, or a request, above the rate.
func tooMany(wait time.Duration, detail string) *Problem {
	p := problem(http.StatusTooManyRequests, codeTooMany, detail)
	p.wait = wait
	return p
}

// busy is the answer when too many passwords wait for their check.
func busy() *Problem { return tooMany(time.Second, "Too many people are logging in. Wait a moment.") }
