package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"time"
)

// Pair names the two PEM files of a certificate: the chain, the leaf first, and the
// private key of the leaf.
type Pair struct{ Certificate, Key string }

// watchEvery is how often the files are looked at. Looking at times and sizes works on
// every file system, also where a link is exchanged, as Kubernetes does with secrets.
const watchEvery = 10 * time.Second

// ErrNoCertificate: no certificate names the host that a visitor asks for.
var ErrNoCertificate = errors.New("certs: no certificate for this name")

// Files gives certificates from files. Its methods may be called concurrently.
type Files struct {
	pairs  []Pair
	log    *slog.Logger
	loaded atomic.Pointer[[]*tls.Certificate]
	stamps []stamp // of the files that were read last; for Watch alone
}

// OpenFiles reads all pairs. The error names the file.
func OpenFiles(pairs []Pair, log *slog.Logger) (*Files, error) {
	f := &Files{pairs: pairs, log: log, stamps: stampsOf(pairs)}
	certificates, err := load(pairs)
	if err != nil {
		return nil, err
	}
	f.loaded.Store(&certificates)
	return f, nil
}

// load reads all pairs.
func load(pairs []Pair) ([]*tls.Certificate, error) {
	var certificates []*tls.Certificate
	for _, pair := range pairs {
		c, err := tls.LoadX509KeyPair(pair.Certificate, pair.Key)
		if err != nil {
			return nil, fmt.Errorf("certs: read the certificate %s with the key %s: %w", pair.Certificate, pair.Key, err)
		}
		certificates = append(certificates, &c)
	}
	return certificates, nil
}

// Certificate gives the first certificate that fits a hello, by name and by the
// algorithms of the visitor. It has the form of [tls.Config.GetCertificate].
func (f *Files) Certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	for _, c := range *f.loaded.Load() {
		if hello.SupportsCertificate(c) == nil {
			return c, nil
		}
	}
	return nil, ErrNoCertificate
}

// Leaves gives the certificates that are in use, for metrics and readiness.
func (f *Files) Leaves() []*x509.Certificate {
	var leaves []*x509.Certificate
	for _, c := range *f.loaded.Load() {
		leaves = append(leaves, c.Leaf)
	}
	return leaves
}

// Watch reads the files again when they have changed, until ctx ends. When they cannot
// be read, the earlier certificates stay in use: a key that is written after its
// certificate must not end the service in between.
func (f *Files) Watch(ctx context.Context) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			f.look()
		}
	}
}

// look reads the files if one of them has another time or size.
func (f *Files) look() {
	now := stampsOf(f.pairs)
	changed := false
	for i := range now {
		changed = changed || now[i] != f.stamps[i]
	}
	if !changed {
		return
	}
	f.stamps = now
	certificates, err := load(f.pairs)
	if err != nil {
		f.log.Error("the changed certificate files cannot be used; the earlier certificates stay in use", "error", err)
		return
	}
	f.loaded.Store(&certificates)
	for _, c := range certificates {
		f.log.Info("certificate read", "names", c.Leaf.DNSNames, "ends", c.Leaf.NotAfter)
	}
}

// stamp tells one content of a file from another.
type stamp struct {
	changed time.Time
	size    int64
}

// stampsOf looks at the files of all pairs. A missing file has the zero stamp.
func stampsOf(pairs []Pair) []stamp {
	var stamps []stamp
	for _, pair := range pairs {
		for _, name := range []string{pair.Certificate, pair.Key} {
			var s stamp
			if info, err := os.Stat(name); err == nil {
				s = stamp{info.ModTime(), info.Size()}
			}
			stamps = append(stamps, s)
		}
	}
	return stamps
}
