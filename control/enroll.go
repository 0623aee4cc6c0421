package control

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/tunnox-net/tunnox/control/controlpb"
	"github.com/tunnox-net/tunnox/domain"
)

// Enroller gets a node its certificates: the first in exchange for the join token, each
// later one in exchange for the one before. Its Issue is for [RenewerConfig].
type Enroller struct {
	Node      string   // the leased node id
	Addresses []string // of the control planes
	// Token gives the join token; it is called each time, because the token may have
	// been rotated. nil = no token: only renewing works.
	Token   func() (JoinToken, error)
	Timeout time.Duration // of one attempt; 15 s
	Dial    func(ctx context.Context, address string) (net.Conn, error)
	Now     func() time.Time
}

// Issue renews current while it is valid, and enrols otherwise.
func (e *Enroller) Issue(ctx context.Context, current *Issued) (Issued, error) {
	timeout := e.Timeout
	if timeout <= 0 {
		timeout = 15 * time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	config := Config{Addresses: e.Addresses, Dial: e.Dial, Now: e.Now, Timeout: timeout / 2, Metrics: NewClientMetrics()}
	if err := config.complete(); err != nil {
		return Issued{}, err
	}
	var failure error
	if current != nil && config.Now().Before(current.Certificate.Leaf.NotAfter) && FitsNode(e.Node)(current.Certificate.Leaf) {
		next, err := e.renew(ctx, config, *current)
		if err == nil {
			return next, nil
		}
		failure = fmt.Errorf("renew node certificate: %w", err)
		// A node that was refused must not try the other way.
		if e.Token == nil || domain.CodeOf(err) == codeJoinRefused || ctx.Err() != nil {
			return Issued{}, failure
		}
	}
	next, err := e.enroll(ctx, config)
	if err != nil {
		return Issued{}, errors.Join(failure, fmt.Errorf("enrol node: %w", err))
	}
	return next, nil
}

func (e *Enroller) renew(ctx context.Context, config Config, current Issued) (Issued, error) {
	config.Trust = Trust{
		Certificate: func() (*tls.Certificate, error) { return &current.Certificate, nil },
		Roots:       func() (*x509.CertPool, error) { return current.roots(), nil },
	}
	client, err := Dial(config)
	if err != nil {
		return Issued{}, err
	}
	defer client.Close()
	return client.Renew(ctx)
}

func (e *Enroller) enroll(ctx context.Context, config Config) (Issued, error) {
	if e.Token == nil {
		return Issued{}, errors.New("there is no join token")
	}
	token, err := e.Token()
	if err != nil {
		return Issued{}, err
	}
	conn, err := connect(config, pinnedTLS(token.pin, config.Now), `{"loadBalancingConfig":[{"round_robin":{}}]}`)
	if err != nil {
		return Issued{}, err
	}
	defer conn.Close()
	next, err := obtain(ctx, nil, func(ctx context.Context, request []byte) (*controlpb.Certificate, error) {
		answer, err := controlpb.NewEnrollmentClient(conn).Enroll(ctx,
			&controlpb.EnrollRequest{Secret: token.secret[:], Node: e.Node, Request: request})
		_, err = received(err)
		return answer, err
	})
	if err != nil {
		return Issued{}, err
	}
	if !FitsNode(e.Node)(next.Certificate.Leaf) {
		return Issued{}, fmt.Errorf("%w: the certificate is for another node", ErrIdentity)
	}
	return next, nil
}
