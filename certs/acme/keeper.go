package acme

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"

	"github.com/tunnox-net/tunnox/wait"
)

// Errors of Certificate.
var (
	// ErrUnwanted: nobody has the host, so no certificate is ordered for it.
	ErrUnwanted = errors.New("acme: nobody has this host")
	// ErrOrdered: the certificate is being ordered. Ask again in a moment.
	ErrOrdered = errors.New("acme: the certificate is being ordered")
	// ErrFailed: the authority gave no certificate, and is not asked again for a while.
	ErrFailed = errors.New("acme: the authority gave no certificate")
)

const (
	// orderTime bounds an order with all its challenges.
	orderTime = 3 * time.Minute
	// maxOrders bounds the orders under way.
	maxOrders = 32
	// After a failed order the next one of the host waits, twice as long each time.
	// Let's Encrypt allows five failed validations of a host in an hour.
	firstRetry, lastRetry = time.Minute, time.Hour
	maxFailures           = 10_000 // hosts that are remembered for it
	// sweepEvery is how often it is looked which stored certificates are still wanted.
	sweepEvery = time.Hour
	// keptExpired is how long an expired certificate stays in the storage.
	keptExpired = 14 * 24 * time.Hour
)

// Config is what a keeper is made of. The zero value of Contact,
// Roots, Metrics, Retry and RenewEvery is their default; the rest is required.
type Config struct {
	// Directory is the URL of the authority's directory.
	Directory string
	// Contact is the e-mail address that the authority may write to; "" = none.
	Contact string
	// Roots are trusted for the connection to the authority; nil = those of the system.
	Roots *x509.CertPool
	// Storage has the certificates, the account and the challenges. Keepers with one
	// storage work together.
	Storage certmagic.Storage
	// Wanted reports whether somebody has the host now. It is asked before every order
	// and every answer.
	Wanted func(ctx context.Context, host string) (bool, error)
	// DNSCommand is a program that makes TXT records, with which the names of ByDNS are
	// proved, wildcards among them; "" = none.
	DNSCommand string
	// ByDNS reports whether a name is proved so. Required with DNSCommand.
	ByDNS  func(ctx context.Context, name string) (bool, error)
	Logger *slog.Logger
	// Metrics count; nil = nobody looks.
	Metrics *Metrics
	// Retry is the pause after the first failed order of a host. Default 1 min.
	Retry time.Duration
	// RenewEvery is how often it is looked which certificates come near their end.
	// Default 10 min.
	RenewEvery time.Duration
}

// Keeper keeps the certificates. Its methods may be called concurrently.
type Keeper struct {
	config Config
	magic  *certmagic.Config
	cache  *certmagic.Cache
	issuer *issuer

	life  context.Context
	end   context.CancelFunc
	tasks sync.WaitGroup

	mu       sync.Mutex
	held     map[string]struct{} // hosts whose certificates are in the cache; guarded by mu
	orders   map[string]*order   // by host; guarded by mu
	failures map[string]*failure // by host; guarded by mu
}

// order is one that is under way.
type order struct {
	done chan struct{}
	err  error // set before done is closed
}

// failure is what went wrong with a host last.
type failure struct {
	until time.Time
	pause wait.Backoff
	err   error
}

// Open makes a keeper. Run must be called; Close ends it.
func Open(config Config) *Keeper {
	config.Retry = cmp.Or(config.Retry, firstRetry)
	if config.Metrics == nil {
		config.Metrics = NewMetrics()
	}
	k := &Keeper{config: config, held: map[string]struct{}{}, orders: map[string]*order{}, failures: map[string]*failure{}}
	k.life, k.end = context.WithCancel(context.Background())
	k.issuer = newIssuer(config)
	log := zapOver(config.Logger)
	k.cache = certmagic.NewCache(certmagic.CacheOptions{Logger: log, RenewCheckInterval: config.RenewEvery,
		GetConfigForCert: func(certmagic.Certificate) (*certmagic.Config, error) { return k.magic, nil }})
	k.magic = certmagic.New(k.cache, certmagic.Config{Storage: config.Storage, Issuers: []certmagic.Issuer{k.issuer}, Logger: log, OnEvent: k.hear,
		KeySource: certmagic.StandardKeyGenerator{KeyType: certmagic.P256}, DisableStorageCheck: true})
	config.Metrics.keeper.Store(k)
	return k
}

// Close ends the orders that are under way, and waits for them.
func (k *Keeper) Close() {
	k.end()
	k.tasks.Wait()
	k.cache.Stop()
	k.issuer.close()
}

// Certificate gives the certificate of a host, or of a wildcard, with its key. If there is none it is
// ordered, which may take longer than ctx lasts: the error is [ErrOrdered] then, and
// the order goes on.
func (k *Keeper) Certificate(ctx context.Context, host string) (*tls.Certificate, error) {
	wanted, err := k.config.Wanted(ctx, host)
	if err != nil {
		return nil, fmt.Errorf("look whether somebody has %s: %w", host, err)
	}
	if !wanted {
		return nil, ErrUnwanted
	}
	if c := k.cached(host); c != nil {
		return c, nil
	}
	o, err := k.order(host)
	if err != nil {
		return nil, err
	}
	select {
	case <-o.done:
	case <-ctx.Done():
		return nil, ErrOrdered
	}
	if o.err != nil {
		return nil, o.err
	}
	if c := k.cached(host); c != nil {
		return c, nil
	}
	return nil, ErrOrdered // it has been let go of since
}

// cached gives the certificate of a host that ends last; nil for none that is valid.
func (k *Keeper) cached(host string) (best *tls.Certificate) {
	for _, c := range k.cache.AllMatchingCertificates(host) {
		if !c.Expired() && (best == nil || c.Leaf.NotAfter.After(best.Leaf.NotAfter)) {
			best = &c.Certificate
		}
	}
	return best
}

// order begins to get a certificate, or gives the order that is under way.
func (k *Keeper) order(host string) (*order, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if o := k.orders[host]; o != nil {
		return o, nil
	}
	if f := k.failures[host]; f != nil && time.Now().Before(f.until) {
		return nil, fmt.Errorf("%w; the next try is in %v: %w", ErrFailed, time.Until(f.until).Round(time.Second), f.err)
	}
	if k.life.Err() != nil || len(k.orders) >= maxOrders {
		return nil, ErrOrdered
	}
	o := &order{done: make(chan struct{})}
	k.orders[host] = o
	k.tasks.Go(func() {
		defer close(o.done)
		ctx, cancel := context.WithTimeout(k.life, orderTime)
		defer cancel()
		err := k.manage(ctx, host)
		k.mu.Lock()
		defer k.mu.Unlock()
		delete(k.orders, host)
		if o.err = err; err != nil && k.life.Err() == nil {
			o.err = fmt.Errorf("%w: %w", ErrFailed, err)
			k.remember(host, err)
		}
	})
	return o, nil
}

// manage loads a certificate from the storage, or orders it, and has it renewed from
// then on.
func (k *Keeper) manage(ctx context.Context, host string) error {
	k.cache.RemoveManaged([]certmagic.SubjectIssuer{{Subject: host}}) // what is there has expired
	if err := k.magic.ManageSync(ctx, []string{host}); err != nil && k.cached(host) == nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.held[host] = struct{}{}
	delete(k.failures, host)
	return nil
}

// hear is told by certmagic what happens. It reports renewals, which nobody waits for.
func (k *Keeper) hear(_ context.Context, event string, about map[string]any) error {
	if renewal, _ := about["renewal"].(bool); !renewal {
		return nil
	}
	switch event {
	case "cert_obtained":
		k.config.Logger.Info("a certificate was renewed", "host", about["identifier"])
	case "cert_failed":
		k.config.Logger.Warn("a certificate was not renewed; the next try is soon", "host", about["identifier"], "remaining", about["remaining"], "error", about["error"])
	}
	return nil
}

// remember has the next order of a host wait.
func (k *Keeper) remember(host string, err error) {
	f := k.failures[host]
	if f == nil {
		if len(k.failures) >= maxFailures {
			k.forget()
		}
		f = &failure{pause: wait.Backoff{First: 2 * k.config.Retry, Most: lastRetry}} // half of a pause is drawn
		k.failures[host] = f
	}
	pause := f.pause.Next()
	f.err, f.until = err, time.Now().Add(pause)
	k.config.Logger.Warn("no certificate was given for a host", "host", host, "next_try_in", pause.Round(time.Second), "error", err)
}

// forget makes room for one more failure: what is over goes, or else what is over first. A
// failure that was not noted would have its host ordered again for each visitor.
func (k *Keeper) forget() {
	now, first := time.Now(), ""
	for host, f := range k.failures {
		if now.After(f.until) {
			delete(k.failures, host)
		} else if first == "" || f.until.Before(k.failures[first].until) {
			first = host
		}
	}
	if len(k.failures) >= maxFailures {
		delete(k.failures, first)
	}
}

// Run keeps stored certificates renewed, lets go of those that nobody wants any more,
// and deletes expired ones, until ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	for {
		k.sweep(ctx)
		if !wait.For(ctx, sweepEvery) {
			return nil
		}
	}
}

// sweep compares what is stored with what is wanted.
func (k *Keeper) sweep(ctx context.Context) {
	for host := range k.stored(ctx) {
		wanted, err := k.config.Wanted(ctx, host)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			k.config.Logger.Warn("cannot find out whether a host is still published; its certificate is kept", "host", host, "error", err)
		case wanted && k.cached(host) == nil:
			if _, err := k.magic.CacheManagedCertificate(ctx, host); err != nil {
				k.config.Logger.Warn("a stored certificate cannot be read", "host", host, "error", err)
				continue
			}
			k.mu.Lock()
			k.held[host] = struct{}{}
			k.mu.Unlock()
		case !wanted:
			k.cache.RemoveManaged([]certmagic.SubjectIssuer{{Subject: host}})
			k.mu.Lock()
			delete(k.held, host)
			k.mu.Unlock()
		}
	}
	err := certmagic.CleanStorage(ctx, k.config.Storage, certmagic.CleanStorageOptions{Logger: zap.NewNop(), Interval: 24 * time.Hour,
		OCSPStaples: true, ExpiredCerts: true, ExpiredCertGracePeriod: keptExpired})
	if err != nil && ctx.Err() == nil {
		k.config.Logger.Warn("expired certificates cannot be deleted", "error", err)
	}
}

// storedWildcard is how certmagic spells "*." in the storage.
const storedWildcard = "wildcard_."

// stored gives the hosts that have a stored certificate, and those that are held.
func (k *Keeper) stored(ctx context.Context) map[string]struct{} {
	hosts := map[string]struct{}{}
	keys, err := k.config.Storage.List(ctx, certmagic.StorageKeys.CertsPrefix(k.issuer.IssuerKey()), false)
	if err == nil { // else there is none yet, or the storage is away
		for _, key := range keys {
			hosts[strings.Replace(path.Base(key), storedWildcard, "*.", 1)] = struct{}{}
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	maps.Copy(hosts, k.held)
	return hosts
}
