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

// take takes a token of name, if there is one.
func (b *buckets) take(name string, now time.Time) grant {
	b.mu.Lock()
	defer b.mu.Unlock()
	full := b.full[name]
	if full.Before(now) {
		full = now
	}
	capacity := time.Duration(b.burst) * b.interval
	if latest := now.Add(capacity); full.After(latest) {
		full = latest // the clock went back: count the bucket as empty, not as worse
		b.full[name] = full
	}
	if next := full.Add(b.interval); next.Sub(now) <= capacity {
		if _, known := b.full[name]; !known && len(b.full) >= b.most {
			b.forget(now)
		}
		b.full[name] = next
		missing := next.Sub(now)
		return grant{left: int((capacity - missing) / b.interval), full: missing}
	}
	return grant{full: full.Sub(now), wait: full.Add(b.interval).Sub(now) - capacity}
}

// fill makes the bucket of name full.
func (b *buckets) fill(name string) {
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
