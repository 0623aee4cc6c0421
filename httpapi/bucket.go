package httpapi

import (
	"sync"
	"time"
)

// buckets limit rates by name: each name may have a burst and then a steady rate. One
// time is kept for each name: when its bucket will be full again. A name with a full
// bucket is forgotten, so that names of strangers take memory only while they are
// limited.
type buckets struct {
	interval time.Duration // one token
	burst    int           // tokens in a full bucket
	most     int           // names kept at a time

	shared *sharedBuckets // nil = no other server counts the same

	mu   sync.Mutex
	full map[string]time.Time // guarded by mu; when the bucket of a name is full again
}

// mostNames bounds how many names a set of buckets keeps. At some 100 bytes a
// name it is worth ten megabytes.
const mostNames = 100_000

func newBuckets(perSecond float64, burst int) *buckets {
	return &buckets{interval: time.Duration(float64(time.Second) / perSecond), burst: burst, most: mostNames, full: map[string]time.Time{}}
}

// grant is the result of asking for a token.
type grant struct {
	left int           // tokens that are left
	full time.Duration // until the bucket is full again
	wait time.Duration // until there is a token; 0 = one was taken
}

// take takes a token of name, if there is one: of the bucket that all servers have
// together, or, while that cannot be asked, of this server's part.
func (b *buckets) take(name string, now time.Time) grant {
	if b.shared == nil {
		return b.takeHere(name, now, 1)
	}
	if g, ok := b.shared.take(name, now); ok {
		return g
	}
	return b.takeHere(name, now, b.shared.rates.Servers())
}

// takeHere takes a token of this server's bucket, which is one of several.
func (b *buckets) takeHere(name string, now time.Time, servers int) grant {
	interval, burst := b.interval*time.Duration(max(servers, 1)), max(b.burst/max(servers, 1), 1)
	b.mu.Lock()
	defer b.mu.Unlock()
	full := b.full[name]
	if full.Before(now) {
		full = now
	}
	capacity := time.Duration(burst) * interval
	if latest := now.Add(capacity); full.After(latest) {
		full = latest // the clock went back: count the bucket as empty, not as worse
		b.full[name] = full
	}
	if next := full.Add(interval); next.Sub(now) <= capacity {
		if _, known := b.full[name]; !known && len(b.full) >= b.most {
			b.forget(now)
		}
		b.full[name] = next
		missing := next.Sub(now)
		return grant{left: int((capacity - missing) / interval), full: missing}
	}
	return grant{full: full.Sub(now), wait: full.Add(interval).Sub(now) - capacity}
}

// fill makes the bucket of name full.
func (b *buckets) fill(name string) {
	if b.shared != nil {
		b.shared.fill(name)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.full, name)
}

// forget makes room: names with full buckets go first. When that is not enough, some
// other names go too and get a full bucket, because bounded memory matters more than
// an exact limit.
func (b *buckets) forget(now time.Time) {
	for name, full := range b.full {
		if !full.After(now) {
			delete(b.full, name)
		}
	}
	for name := range b.full {
		if len(b.full) <= b.most*9/10 {
			return
		}
		delete(b.full, name)
	}
}
