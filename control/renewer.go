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
	// Issue gets a new identity. current is what there is, which may have expired;
	// nil when there is none.
	Issue func(ctx context.Context, current *Issued) (Issued, error)
	// File keeps the identity over restarts, so that a node can start while the
	// control plane is away; "" = it is not kept.
	File string
	// Fits tells whether an identity from File is the one wanted, for example for
	// the node id of now; nil = it is.
	Fits func(*x509.Certificate) bool
	Name string // in logs and metrics, for example "node"
	Now  func() time.Time
	Log  *slog.Logger
	// Registry gets the time at which the certificate ends; nil = nobody does.
	Registry prometheus.Registerer
}

const (
	renewPauseMin = time.Second
	renewPauseMax = 5 * time.Minute
)

// Renewer keeps one identity valid: it is renewed when two thirds of its life
// have passed, give or take a tenth, so that the nodes of a cluster that started
// together do not come together for ever.
type Renewer struct {
	config RenewerConfig

	mu      sync.Mutex
	current Issued         // guarded by mu
	roots   *x509.CertPool // guarded by mu; of current
}

// NewRenewer has an identity when it returns: that of the file when it is there
// and still valid, else a new one. It waits for a control plane, until ctx ends,
// since nodes and control planes may be started in any order; a refusal is final.
func NewRenewer(ctx context.Context, config RenewerConfig) (*Renewer, error) {
	if config.Issue == nil {
		return nil, errors.New("renew certificate: nobody to issue it")
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
			Help:        "Unix time at which the certificate in use ends.",
			ConstLabels: prometheus.Labels{"certificate": config.Name}}, func() float64 { return float64(r.Expires().Unix()) })
		if err := config.Registry.Register(ends); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return r, nil
}

// load takes the identity of the file when it is good. A file that is broken or
// of somebody else is replaced: everything in it can be had again.
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
		r.config.Log.Warn("the certificate on disk cannot be used, getting another", "certificate", r.config.Name, "error", err)
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

// first gets an identity where there is none.
func (r *Renewer) first(ctx context.Context) error {
	for pause := renewPauseMin / 4; ; pause = min(2*pause, 10*time.Second) {
		err := r.renew(ctx, nil)
		if err == nil || !errors.Is(err, ErrUnavailable) {
			return err
		}
		r.config.Log.Warn("no control plane gives a certificate yet, trying on", "certificate", r.config.Name, "error", err)
		if r.sleep(ctx, time.Duration(float64(pause)*(0.5+rand.Float64()))) != nil {
			return err
		}
	}
}

func (r *Renewer) identity() Issued {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.current
}

// renew gets a new identity and keeps it.
func (r *Renewer) renew(ctx context.Context, current *Issued) error {
	next, err := r.config.Issue(ctx, current)
	if err != nil {
		return err
	}
	leaf := next.Certificate.Leaf
	if leaf == nil || !r.config.Now().Before(leaf.NotAfter) {
		return errors.New("the certificate that was issued has ended, or the clock of this machine is wrong")
	}
	r.set(next)
	if r.config.File == "" {
		return nil
	}
	if err := next.save(r.config.File); err != nil {
		// It is in use all the same; a restart gets another.
		r.config.Log.Warn("cannot keep the certificate on disk", "certificate", r.config.Name, "error", err)
	}
	return nil
}

// Run renews the identity in time, until ctx ends. While it cannot, it tries on,
// more and more seldom, and what there is stays in use.
func (r *Renewer) Run(ctx context.Context) error {
	jitter := drawJitter()
	for pause := renewPauseMin; ; {
		at := r.due(jitter)
		if err := r.sleep(ctx, at.Sub(r.wall())); err != nil {
			return nil
		}
		current := r.identity()
		if late := r.wall().Sub(current.Certificate.Leaf.NotAfter); late >= 0 && pause == renewPauseMin {
			r.config.Log.Error("the certificate has ended before it was renewed, because this machine was asleep or its clock was set; getting another",
				"certificate", r.config.Name, "expired", current.Certificate.Leaf.NotAfter)
		}
		err := r.renew(ctx, &current)
		if err == nil {
			pause, jitter = renewPauseMin, drawJitter()
			continue
		}
		if ctx.Err() != nil {
			return nil
		}
		level := slog.LevelWarn
		if r.Check(ctx) != nil {
			level = slog.LevelError // it has ended, or does soon
		}
		r.config.Log.Log(ctx, level, "cannot renew the certificate, trying on", "certificate", r.config.Name,
			"expires", current.Certificate.Leaf.NotAfter, "error", err)
		if err := r.sleep(ctx, time.Duration(float64(pause)*(0.5+rand.Float64()))); err != nil {
			return nil
		}
		pause = min(2*pause, renewPauseMax)
	}
}

// drawJitter gives the tenth more or less.
func drawJitter() float64 { return 0.9 + 0.2*rand.Float64() }

// due is when the identity is to be renewed.
func (r *Renewer) due(jitter float64) time.Time {
	current, _ := r.Certificate()
	life := current.Leaf.NotAfter.Sub(current.Leaf.NotBefore)
	return current.Leaf.NotBefore.Add(min(time.Duration(jitter*float64(life)*2/3), life*9/10))
}

// sleep looks at the clock at least every minute, and at the wall: a machine that was
// asleep has a later time there, but its timers and its monotonic clock do not know.
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

// wall gives the time of day without the monotonic reading, which Sub would prefer.
func (r *Renewer) wall() time.Time { return r.config.Now().Round(0) }

// Check tells, for readiness, that the certificate has ended, or is about to because
// nobody renews it.
func (r *Renewer) Check(context.Context) error {
	current, _ := r.Certificate()
	leaf, now := current.Leaf, r.wall()
	switch left := leaf.NotAfter.Sub(now); {
	case left <= 0:
		return fmt.Errorf("the %s certificate ended at %s, and no control plane has given another", r.config.Name, leaf.NotAfter.UTC().Format(time.RFC3339))
	case left < leaf.NotAfter.Sub(leaf.NotBefore)/10:
		return fmt.Errorf("the %s certificate ends at %s, and no control plane has given another", r.config.Name, leaf.NotAfter.UTC().Format(time.RFC3339))
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

// Authorities gives the same as certificates.
func (r *Renewer) Authorities() []*x509.Certificate {
	return slices.Clone(r.identity().Authorities)
}

// Trust is how others use the identity.
func (r *Renewer) Trust() Trust { return Trust{Certificate: r.Certificate, Roots: r.Roots} }

// GetCertificate is for the field of that name in a server's [tls.Config].
func (r *Renewer) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return r.Certificate()
}

// Expires is when the certificate ends.
func (r *Renewer) Expires() time.Time {
	c, _ := r.Certificate()
	return c.Leaf.NotAfter
}

// FitsNode is for [RenewerConfig.Fits]: the certificate is that of the node.
func FitsNode(node string) func(*x509.Certificate) bool {
	return func(c *x509.Certificate) bool {
		is, err := nodeOf(c)
		return err == nil && is == node
	}
}
