package control

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/tunnox-net/tunnox/control/controlpb"
	"github.com/tunnox-net/tunnox/domain"
)

// Enroller gets a node its certificates: the first in exchange for the join token, each
// later one in exchange for the one before. Its Issue is for [RenewerConfig].
type Enroller struct {
	Node      string   // the leased node id
	Names     []string // host names and addresses at which agents reach the node, to register
	Addresses []string // of the control planes
	// Token gives the join token; it is called each time, because the token may have
	// been rotated. nil = no token: only renewing works.
	Token   func() (JoinToken, error)
	Timeout time.Duration // of one attempt; 15 s
	Dial    func(ctx context.Context, address string) (net.Conn, error)
	Now     func() time.Time

	key crypto.Signer // with which it joins; drawn at the first attempt
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
		if e.Token == nil || domain.CodeOf(err) == codeJoinRefused || domain.CodeOf(err) == domain.CodeNodeRevoked || ctx.Err() != nil {
			return Issued{}, failure
		}
	}
	next, err := e.enroll(ctx, config, nil)
	if err != nil {
		return Issued{}, errors.Join(fmt.Errorf("enrol node: %w", err), failure)
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

// Register joins again, with the key of the present certificate, to register the names
// that the node has now. It needs a join token.
func (e *Enroller) Register(ctx context.Context, current Issued) (Issued, error) {
	config := Config{Addresses: e.Addresses, Dial: e.Dial, Now: e.Now, Metrics: NewClientMetrics()}
	if err := config.complete(); err != nil {
		return Issued{}, err
	}
	key, ok := current.Certificate.PrivateKey.(crypto.Signer)
	if !ok {
		return Issued{}, fmt.Errorf("register the names of the node: a %T cannot sign", current.Certificate.PrivateKey)
	}
	next, err := e.enroll(ctx, config, key)
	if err != nil {
		return Issued{}, fmt.Errorf("register the names of the node: %w", err)
	}
	return next, nil
}

func (e *Enroller) names() []string {
	names := slices.Clone(e.Names)
	slices.Sort(names)
	return slices.Compact(names)
}

// enroll joins with a key, or with one that is drawn for all attempts of this process:
// when an answer was lost, the id is that key's already.
func (e *Enroller) enroll(ctx context.Context, config Config, key crypto.Signer) (Issued, error) {
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
	if e.key == nil {
		if _, e.key, err = newRequest(nil); err != nil {
			return Issued{}, err
		}
	}
	if key == nil {
		key = e.key
	}
	request, err := requestFor(key, nil)
	if err != nil {
		return Issued{}, err
	}
	next, err := obtainFor(ctx, key, request, func(ctx context.Context, request []byte) (*controlpb.Certificate, error) {
		answer, err := controlpb.NewEnrollmentClient(conn).Enroll(ctx,
			&controlpb.EnrollRequest{Secret: token.secret[:], Node: e.Node, Request: request, Names: e.names()})
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
