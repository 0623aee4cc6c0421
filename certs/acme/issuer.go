package acme

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"
	"golang.org/x/time/rate"
)

// Orders of this process: an authority has limits of its own, and who makes mappings in
// a loop must not use them up at once.
const ordersEvery, ordersAtOnce = 5 * time.Second, 20

var (
	_ certmagic.Issuer            = (*issuer)(nil)
	_ certmagic.RenewalInfoGetter = (*issuer)(nil)
)

// issuer orders certificates. It takes the place of certmagic's own issuer, which
// would answer challenges at listeners of this process: here whoever serves visitors
// answers them.
type issuer struct {
	config Config
	client *acmez.Client
	byDNS  *acmez.Client // for names that are proved by DNS-01; nil = there are none
	close  func()        // ends connections to the authority
	orders *rate.Limiter

	challenges challenges

	mu      sync.Mutex
	account *acme.Account // nil = not looked at yet; guarded by mu
}

func newIssuer(config Config) *issuer {
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: &tls.Config{RootCAs: config.Roots, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout: 30 * time.Second, ResponseHeaderTimeout: 30 * time.Second, IdleConnTimeout: time.Minute, ForceAttemptHTTP2: true}
	i := &issuer{config: config, close: transport.CloseIdleConnections, orders: rate.NewLimiter(rate.Every(ordersEvery), ordersAtOnce)}
	i.challenges = challenges{storage: config.Storage, prefix: "acme/" + i.IssuerKey() + "/challenges/"}
	authority := &acme.Client{Directory: config.Directory, UserAgent: "Tunnox", PollTimeout: orderTime,
		HTTPClient: &http.Client{Transport: transport, Timeout: 30 * time.Second}}
	i.client = &acmez.Client{Client: authority,
		ChallengeSolvers: map[string]acmez.Solver{acme.ChallengeTypeHTTP01: &i.challenges, acme.ChallengeTypeTLSALPN01: &i.challenges}}
	if config.DNSCommand != "" {
		i.byDNS = &acmez.Client{Client: authority, ChallengeSolvers: map[string]acmez.Solver{acme.ChallengeTypeDNS01: &dnsCommand{program: config.DNSCommand}}}
	}
	return i
}

// IssuerKey implements [certmagic.Issuer]: certificates of another authority are
// others.
func (i *issuer) IssuerKey() string {
	u, err := url.Parse(i.config.Directory)
	if err != nil {
		return certmagic.StorageKeys.Safe(i.config.Directory)
	}
	return certmagic.StorageKeys.Safe(strings.ReplaceAll(strings.Trim(u.Host+u.Path, "/"), "/", "-"))
}

// Issue implements [certmagic.Issuer].
func (i *issuer) Issue(ctx context.Context, csr *x509.CertificateRequest) (_ *certmagic.IssuedCertificate, err error) {
	for _, host := range csr.DNSNames {
		wanted, err := i.config.Wanted(ctx, host)
		if err != nil {
			return nil, err
		}
		if !wanted {
			return nil, certmagic.ErrNoRetry{Err: ErrUnwanted}
		}
	}
	if err := i.orders.Wait(ctx); err != nil {
		return nil, err
	}
	defer func() { i.config.Metrics.ordered(err) }()
	for again := true; ; again = false {
		account, err := i.accountToUse(ctx)
		if err != nil {
			return nil, err
		}
		chain, err := i.obtain(ctx, account, csr)
		var problem acme.Problem
		if again && errors.As(err, &problem) && problem.Type == acme.ProblemTypeAccountDoesNotExist {
			// The authority has begun anew, as one in a company may.
			if err := i.forgetAccount(ctx); err != nil {
				return nil, err
			}
			continue
		}
		if err != nil {
			return nil, err
		}
		return &certmagic.IssuedCertificate{Certificate: chain.ChainPEM, Metadata: chain}, nil
	}
}

// obtain makes the order.
func (i *issuer) obtain(ctx context.Context, account acme.Account, csr *x509.CertificateRequest) (acme.Certificate, error) {
	params, err := acmez.OrderParametersFromCSR(account, csr)
	if err != nil {
		return acme.Certificate{}, fmt.Errorf("make the order: %w", err)
	}
	params.Replaces = i.present(ctx, csr)
	client := i.client
	if i.byDNS != nil {
		dns := true
		for _, name := range csr.DNSNames {
			ours, err := i.config.ByDNS(ctx, name)
			if err != nil {
				return acme.Certificate{}, err
			}
			dns = dns && ours
		}
		if dns {
			client = i.byDNS
		}
	}
	chains, err := client.ObtainCertificate(ctx, params)
	if err != nil {
		return acme.Certificate{}, err
	}
	if len(chains) == 0 {
		return acme.Certificate{}, errors.New("the authority sent no certificate")
	}
	return chains[0], nil
}

// present gives the certificate that an order replaces (RFC 9773, section 5); nil for
// none.
func (i *issuer) present(ctx context.Context, csr *x509.CertificateRequest) *x509.Certificate {
	if len(csr.DNSNames) != 1 {
		return nil
	}
	text, err := i.config.Storage.Load(ctx, certmagic.StorageKeys.SiteCert(i.IssuerKey(), csr.DNSNames[0]))
	if err != nil {
		return nil
	}
	leaf, err := leafOf(text)
	if err != nil || len(leaf.AuthorityKeyId) == 0 {
		return nil
	}
	return leaf
}

// GetRenewalInfo implements [certmagic.RenewalInfoGetter].
func (i *issuer) GetRenewalInfo(ctx context.Context, c certmagic.Certificate) (acme.RenewalInfo, error) {
	return i.client.GetRenewalInfo(ctx, c.Leaf)
}
