package control

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tunnox-net/tunnox/wait"
)

// RenewerConfig says how a certificate is kept valid. Issue is required.
type RenewerConfig struct {
	// Issue gets a new identity. current is the present one, which may have expired;
	// nil when there is none.
	Issue func(ctx context.Context, current *Issued) (Issued, error)
	// File stores the identity over restarts, so that a node can start while the
	// control plane is away; "" = it is not stored.
	File string
	// Fits reports whether an identity from File is the wanted one, for example for the
	// present node id; nil = it always is.
	Fits func(*x509.Certificate) bool
	Name string // in logs and metrics, for example "node"
	Now  func() time.Time
	Log  *slog.Logger
	// Registry gets a metric with the time at which the certificate expires; nil = no
	// metric.
	Registry prometheus.Registerer
}

const (
	renewPauseMin = time.Second
	renewPauseMax = 5 * time.Minute
)

// Renewer keeps one identity valid. It renews the identity after two thirds of its
// life, a tenth more or less, so that the nodes of a cluster that started together do
// not always renew together.
type Renewer struct {
	config RenewerConfig

	mu      sync.Mutex
	current Issued         // guarded by mu
	roots   *x509.CertPool // guarded by mu; of current
}

// NewRenewer has an identity when it returns: that of the file if it is there and still
// valid, or else a new one. It waits for a control plane until ctx ends, because nodes
// and control planes may be started in any order. A refusal is final.
func NewRenewer(ctx context.Context, config RenewerConfig) (*Renewer, error) {
	if config.Issue == nil {
		return nil, errors.New("renew certificate: Issue is required")
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	r := &Renewer{config: config}
	kept, err := r.load()
	if err != nil {
		return nil, err
	}
	if kept == nil {
		if err := r.first(ctx); err != nil {
			return nil, fmt.Errorf("get %s certificate: %w", config.Name, err)
		}
	}
	if config.Registry != nil {
		ends := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "tunnox_certificate_expires_seconds",
			Help:        "Unix time at which the certificate in use expires.",
			ConstLabels: prometheus.Labels{"certificate": config.Name}}, func() float64 { return float64(r.Expires().Unix()) })
		if err := config.Registry.Register(ends); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return r, nil
}

// load uses the identity of the file if it is valid. A broken or foreign file is
// replaced: everything in it can be made again.
func (r *Renewer) load() (*Issued, error) {
	if r.config.File == "" {
		return nil, nil
	}
	kept, err := loadIssued(r.config.File)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if errors.Is(err, fs.ErrPermission) {
		return nil, err
	}
	now := r.config.Now()
	switch leaf := kept.Certificate.Leaf; {
	case err != nil:
		r.config.Log.Warn("the certificate on disk cannot be used, getting another one", "certificate", r.config.Name, "error", err)
		return nil, nil
	case now.After(leaf.NotAfter), now.Before(leaf.NotBefore), r.config.Fits != nil && !r.config.Fits(leaf):
		return nil, nil
	}
	r.set(kept)
	return &kept, nil
}

func (r *Renewer) set(i Issued) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.current, r.roots = i, i.roots()
}

// first gets an identity if there is none.
func (r *Renewer) first(ctx context.Context) error {
	pauses := wait.Backoff{First: renewPauseMin / 4, Most: 10 * time.Second}
	for {
		err := r.renew(ctx, nil)
		if err == nil || !errors.Is(err, ErrUnavailable) {
			return err
		}
		r.config.Log.Warn("no control plane gives a certificate yet, trying again", "certificate", r.config.Name, "error", err)
		if r.sleep(ctx, pauses.Next()) != nil {
			return err
		}
	}
}

func (r *Renewer) identity() Issued {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.current
}

// renew gets a new identity and stores it.
func (r *Renewer) renew(ctx context.Context, current *Issued) error {
	next, err := r.config.Issue(ctx, current)
	if err != nil {
		return err
	}
	leaf := next.Certificate.Leaf
	if leaf == nil || !r.config.Now().Before(leaf.NotAfter) {
		return errors.New("the issued certificate has expired, or the clock of this machine is wrong")
	}
	r.set(next)
	if r.config.File == "" {
		return nil
	}
	if err := next.save(r.config.File); err != nil {
		// The identity is used all the same; after a restart the node gets another one.
		r.config.Log.Warn("cannot store the certificate on disk", "certificate", r.config.Name, "error", err)
	}
	return nil
}

// Run renews the identity in time, until ctx ends. After a failure it tries again, less
// and less often, and the present identity stays in use.
func (r *Renewer) Run(ctx context.Context) error {
	jitter := drawJitter()
	pauses := wait.Backoff{First: renewPauseMin, Most: renewPauseMax}
	for {
		at := r.due(jitter)
		if err := r.sleep(ctx, at.Sub(r.wall())); err != nil {
			return nil
		}
		current := r.identity()
		if late := r.wall().Sub(current.Certificate.Leaf.NotAfter); late >= 0 && pauses.Tries() == 0 {
			r.config.Log.Error("the certificate has expired before it was renewed, because this machine was asleep or its clock was set; getting another one",
				"certificate", r.config.Name, "expired", current.Certificate.Leaf.NotAfter)
		}
		err := r.renew(ctx, &current)
		if err == nil {
			pauses.Reset()
			jitter = drawJitter()
			continue
		}
		if ctx.Err() != nil {
			return nil
		}
		level := slog.LevelWarn
		if r.Check(ctx) != nil {
			level = slog.LevelError // it has expired, or will soon
		}
		r.config.Log.Log(ctx, level, "cannot renew the certificate, trying again", "certificate", r.config.Name,
			"expires", current.Certificate.Leaf.NotAfter, "error", err)
		if err := r.sleep(ctx, pauses.Next()); err != nil {
			return nil
		}
	}
}

// drawJitter gives the tenth more or less.
func drawJitter() float64 { return 0.9 + 0.2*rand.Float64() }

// due gives the time at which the identity must be renewed.
func (r *Renewer) due(jitter float64) time.Time {
	current, _ := r.Certificate()
	life := current.Leaf.NotAfter.Sub(current.Leaf.NotBefore)
	return current.Leaf.NotBefore.Add(min(time.Duration(jitter*float64(life)*2/3), life*9/10))
}

// sleep looks at the clock at least every minute, and uses the wall clock: after a
// machine was asleep the wall clock is right, but timers and the monotonic clock have
// stood still.
func (r *Renewer) sleep(ctx context.Context, d time.Duration) error {
	until := r.wall().Add(d)
	for {
		left := until.Sub(r.wall())
		if left <= 0 {
			return ctx.Err()
		}
		if !wait.For(ctx, min(left, time.Minute)) {
			return ctx.Err()
		}
	}
}

// wall gives the time of day without the monotonic reading, which Sub would use.
func (r *Renewer) wall() time.Time { return r.config.Now().Round(0) }

// Check reports, for readiness, that the certificate has expired, or will soon because
// nobody renews it.
func (r *Renewer) Check(context.Context) error {
	current, _ := r.Certificate()
	leaf, now := current.Leaf, r.wall()
	switch left := leaf.NotAfter.Sub(now); {
	case left <= 0:
		return fmt.Errorf("the %s certificate expired at %s, and no control plane has given another one", r.config.Name, leaf.NotAfter.UTC().Format(time.RFC3339))
	case left < leaf.NotAfter.Sub(leaf.NotBefore)/10:
		return fmt.Errorf("the %s certificate expires at %s, and no control plane has given another one", r.config.Name, leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	return nil
}

// Certificate gives the identity's certificate and key.
func (r *Renewer) Certificate() (*tls.Certificate, error) {
	c := r.identity().Certificate
	return &c, nil
}

// Roots gives the authorities that came with the certificate.
func (r *Renewer) Roots() (*x509.CertPool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.roots, nil
}

// Authorities gives the same authorities as certificates.
func (r *Renewer) Authorities() []*x509.Certificate {
	return slices.Clone(r.identity().Authorities)
}

// Trust gives the identity in the form that others use.
func (r *Renewer) Trust() Trust { return Trust{Certificate: r.Certificate, Roots: r.Roots} }

// GetCertificate is for the field of that name in a server's [tls.Config].
func (r *Renewer) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return r.Certificate()
}

// Expires gives the time at which the certificate expires.
func (r *Renewer) Expires() time.Time {
	c, _ := r.Certificate()
	return c.Leaf.NotAfter
}

// FitsNode is for [RenewerConfig.Fits]: it checks that the certificate is that of the
// node.
func FitsNode(node string) func(*x509.Certificate) bool {
	return func(c *x509.Certificate) bool {
		is, err := nodeOf(c)
		return err == nil && is == node
	}
}
