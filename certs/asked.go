package certs

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/tunnox-net/tunnox/wait"
)

// ErrOrdered: the certificate is being ordered. Ask again in a moment.
var ErrOrdered = errors.New("certs: the certificate is being ordered")

const (
	// askAgain is how old an answer may be before it is asked for anew, while visitors
	// get the one that is there. A renewed certificate is in use within this time.
	askAgain = 5 * time.Minute
	// askTime bounds one question.
	askTime = 5 * time.Second
	// orderEvery is how often it is asked for a certificate that is being ordered.
	orderEvery = 250 * time.Millisecond
	// noneFor is how long it is remembered that there is no certificate, so that
	// visitors do not become questions, one each.
	noneFor = 15 * time.Second

	maxAsked = 4096 // certificates that are kept; the one that was used longest ago goes first
	maxNone  = 1024
)

// Asked gives certificates that somebody else keeps and renews. They are in memory
// only, with their keys, and bounded.
type Asked struct {
	ask     func(ctx context.Context, host string) (*tls.Certificate, error)
	log     *slog.Logger
	asking  singleflight.Group // by host
	life    context.Context
	end     context.CancelFunc
	running sync.WaitGroup // refreshes

	mu   sync.Mutex
	kept map[string]*keptCertificate // by host; guarded by mu
	none map[string]noCertificate    // by host; guarded by mu
}

type keptCertificate struct {
	certificate *tls.Certificate
	asked, used time.Time
}

type noCertificate struct {
	err   error
	until time.Time
}

// NewAsked gives certificates that ask answers, with Leaf. It fails with
// [ErrNoCertificate] for a host that nobody has, and with [ErrOrdered] while the
// certificate is being ordered.
func NewAsked(ask func(ctx context.Context, host string) (*tls.Certificate, error), log *slog.Logger) *Asked {
	a := &Asked{ask: ask, log: log, kept: map[string]*keptCertificate{}, none: map[string]noCertificate{}}
	a.life, a.end = context.WithCancel(context.Background())
	return a
}

// Close ends the questions that are under way.
func (a *Asked) Close() {
	a.end()
	a.running.Wait()
}

// Certificate gives the certificate of a host. It waits for one that is being ordered
// until ctx ends.
func (a *Asked) Certificate(ctx context.Context, host string) (*tls.Certificate, error) {
	for {
		certificate, err := a.known(host, time.Now())
		if certificate != nil || err != nil {
			return certificate, err
		}
		certificate, err = a.question(ctx, host)
		if !errors.Is(err, ErrOrdered) {
			return certificate, err
		}
		if !wait.For(ctx, orderEvery) {
			return nil, fmt.Errorf("%s: %w", host, ErrOrdered)
		}
	}
}

// known gives what is known of a host. An old answer is given, and asked for anew.
func (a *Asked) known(host string, now time.Time) (*tls.Certificate, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if k := a.kept[host]; k != nil && now.Before(k.certificate.Leaf.NotAfter) {
		k.used = now
		if now.Sub(k.asked) > askAgain && a.life.Err() == nil {
			k.asked = now // one visitor's question is enough
			a.running.Go(func() {
				if _, err := a.question(a.life, host); err != nil && a.life.Err() == nil && !errors.Is(err, ErrNoCertificate) {
					a.log.Warn("cannot ask for a certificate again; the one that is there stays in use", "host", host, "error", err)
				}
			})
		}
		return k.certificate, nil
	}
	if n, ok := a.none[host]; ok && now.Before(n.until) {
		return nil, n.err
	}
	return nil, nil
}

// question asks once for all who want to know, and remembers the answer.
func (a *Asked) question(ctx context.Context, host string) (*tls.Certificate, error) {
	answer := a.asking.DoChan(host, func() (any, error) {
		ctx, cancel := context.WithTimeout(a.life, askTime)
		defer cancel()
		certificate, err := a.ask(ctx, host)
		a.remember(host, certificate, err, time.Now())
		return certificate, err
	})
	select {
	case got := <-answer:
		certificate, _ := got.Val.(*tls.Certificate)
		return certificate, got.Err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (a *Asked) remember(host string, certificate *tls.Certificate, err error, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case err == nil:
		if old := a.kept[host]; old == nil || !old.certificate.Leaf.Equal(certificate.Leaf) {
			a.log.Info("certificate received", "host", host, "ends", certificate.Leaf.NotAfter)
		}
		a.kept[host] = &keptCertificate{certificate: certificate, asked: now, used: now}
		delete(a.none, host)
		a.shrink()
	case errors.Is(err, ErrOrdered):
	default:
		if errors.Is(err, ErrNoCertificate) {
			delete(a.kept, host)
		}
		if len(a.none) >= maxNone {
			for h, n := range a.none {
				if !now.Before(n.until) {
					delete(a.none, h)
				}
			}
		}
		if len(a.none) < maxNone {
			a.none[host] = noCertificate{err, now.Add(noneFor)}
		}
	}
}

// shrink lets an eighth go when there are too many, so that not every new one costs a
// look at all.
func (a *Asked) shrink() {
	if len(a.kept) <= maxAsked {
		return
	}
	hosts := make([]string, 0, len(a.kept))
	for host := range a.kept {
		hosts = append(hosts, host)
	}
	slices.SortFunc(hosts, func(x, y string) int { return a.kept[x].used.Compare(a.kept[y].used) })
	for _, host := range hosts[:len(hosts)-maxAsked*7/8] {
		delete(a.kept, host)
	}
}
