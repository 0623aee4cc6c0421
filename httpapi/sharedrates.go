package httpapi

import (
	"context"
	"sync"
	"time"
)

// Rates counts rates for all servers of a cluster together. Its errors are not shown:
// while it cannot be asked, each server gives its part.
type Rates interface {
	// Take takes up to want tokens of a name's bucket.
	Take(ctx context.Context, rate Rate, name string, want int) (Taken, error)
	// Fill makes a bucket full.
	Fill(ctx context.Context, rate Rate, name string) error
	// Servers is how many servers there are, as known last.
	Servers() int
	// Know has a name known, to all servers, and Known tells whether it is.
	Know(ctx context.Context, name string) error
	Known(ctx context.Context, name string) (bool, error)
}

// Rate is a kind of buckets.
type Rate struct {
	Kind     string
	Interval time.Duration // one token
	Burst    int           // tokens in a full bucket
}

// Taken is the result of asking for tokens.
type Taken struct {
	Granted int
	Left    int           // tokens that are left
	Full    time.Duration // until the bucket is full again
	Wait    time.Duration // until there is a token, when none was granted
}

const (
	// ratesPatience bounds how long a request waits for the count of all servers, and
	// ratesPause is how long that is not asked again after a failure.
	ratesPatience, ratesPause = 250 * time.Millisecond, time.Second
	// leaseTime is how long tokens that were taken in advance are good. Those that are
	// left over are lost: nobody ever gets more than the rate.
	leaseTime = time.Second
	// leasedPart of a bucket is taken in advance, so that one request in many asks.
	leasedPart = 10
)

// sharedBuckets takes tokens from the buckets of all servers, some in advance.
type sharedBuckets struct {
	rates Rates
	rate  Rate
	chunk int // tokens to take at a time

	mu     sync.Mutex
	leases map[string]lease // guarded by mu
	silent time.Time        // guarded by mu; until when the others are not asked
}

// lease are tokens of a name, or that there are none.
type lease struct {
	tokens, left int
	full         time.Duration
	free         time.Time // when there is a token again, zero = there were some
	until        time.Time
}

// share has a set of buckets counted with other servers.
func (b *buckets) share(rates Rates, kind string, chunk int) *buckets {
	if rates != nil {
		b.shared = &sharedBuckets{rates: rates, rate: Rate{kind, b.interval, b.burst}, chunk: max(chunk, 1), leases: map[string]lease{}}
	}
	return b
}

// take takes a token; ok is false when the count of all servers cannot be asked.
func (s *sharedBuckets) take(name string, now time.Time) (g grant, ok bool) {
	if g, ok, ask := s.leased(name, now); !ask {
		return g, ok
	}
	ctx, cancel := context.WithTimeout(context.Background(), ratesPatience)
	defer cancel()
	taken, err := s.rates.Take(ctx, s.rate, name, s.chunk)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.silent = now.Add(ratesPause)
		return grant{}, false
	}
	if len(s.leases) >= mostNames {
		clear(s.leases) // some names lose some tokens
	}
	if taken.Granted == 0 {
		s.leases[name] = lease{full: taken.Full, free: now.Add(taken.Wait), until: now.Add(min(taken.Wait, leaseTime))}
		return grant{full: taken.Full, wait: max(taken.Wait, 1)}, true
	}
	l := lease{tokens: taken.Granted - 1, left: taken.Left, full: taken.Full, until: now.Add(leaseTime)}
	if was := s.leases[name]; now.Before(was.until) { // another request has asked at the same time
		l.tokens += was.tokens
	}
	s.leases[name] = l
	return grant{left: l.left + l.tokens, full: l.full}, true
}

// leased answers from what was taken in advance; ask tells that there is nothing.
func (s *sharedBuckets) leased(name string, now time.Time) (g grant, ok, ask bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, known := s.leases[name]
	switch {
	case now.Before(s.silent):
		return grant{}, false, false
	case !known || !now.Before(l.until):
		delete(s.leases, name)
		return grant{}, false, true
	case !l.free.IsZero():
		return grant{full: l.full, wait: max(l.free.Sub(now), 1)}, true, false
	case l.tokens == 0:
		return grant{}, false, true
	}
	l.tokens--
	s.leases[name] = l
	return grant{left: l.left + l.tokens, full: l.full}, true, false
}

// fill makes the bucket of a name full. When the others cannot be told it fills by itself.
func (s *sharedBuckets) fill(name string) {
	ctx, cancel := context.WithTimeout(context.Background(), ratesPatience)
	defer cancel()
	_ = s.rates.Fill(ctx, s.rate, name)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.leases, name)
}

// tellAll and knownToAny are of names that all servers have in common; without others, or
// while they cannot be asked, nobody is known.
func tellAll(rates Rates, name string) {
	if rates == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), ratesPatience)
	defer cancel()
	_ = rates.Know(ctx, name)
}

func knownToAny(rates Rates, name string) bool {
	if rates == nil {
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), ratesPatience)
	defer cancel()
	ok, err := rates.Known(ctx, name)
	return ok && err == nil
}
