package main

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/tunnox-net/tunnox/attest"
	"github.com/tunnox-net/tunnox/control"
	controlpostgres "github.com/tunnox-net/tunnox/control/postgres"
	"github.com/tunnox-net/tunnox/wait"
	"github.com/tunnox-net/tunnox/wholefile"
)

// Control planes sign with one key what they write to Redis. They share the key among
// the cluster's secrets. Forwarders know its public half from a certificate of the
// cluster's authority. The certificate lies in Redis too: every forwarder knows the
// authority since it was enrolled, and the authority vouches for the key.

const (
	// recordKeyName is the key's name among the cluster's secrets.
	recordKeyName = "record-key"
	// signersKey holds the certificates, by the key's id.
	signersKey = "tunnox:signers"
	// signerEvery is how often the certificate is written: after a flush of Redis,
	// forwarders have no read models for this time.
	signerEvery = 500 * time.Millisecond
	// signerPatience bounds one write of it.
	signerPatience = 2 * time.Second
	// signerRenewed is how often the certificate is renewed; it is valid for a day.
	signerRenewed = 4 * time.Hour
	// authorityFile is the authority's certificate, for forwarders that do not join.
	authorityFile = "cluster-ca.pem"
)

// recordKey gives the key that signs read models and feed.
func (p *process) recordKey(ctx context.Context, shared *controlpostgres.Cluster, key apiKey) (*attest.Key, error) {
	return recordKeyOf(ctx, p.vault(shared, key), key)
}

func recordKeyOf(ctx context.Context, vault control.Vault, key apiKey) (*attest.Key, error) {
	text, err := vault.Load(ctx, recordKeyName)
	if errors.Is(err, control.ErrAbsent) {
		text = attest.NewKey()
		if err = vault.Create(ctx, recordKeyName, text); errors.Is(err, control.ErrPresent) {
			text, err = vault.Load(ctx, recordKeyName) // another control plane was faster
		}
	}
	if err != nil {
		return nil, otherKey(fmt.Errorf("open the key for records: %w", err), key)
	}
	return attest.ParseKey(text)
}

// signers keeps the certificates of keys where forwarders find them.
type signers struct{ client *redis.Client }

func (s *signers) put(ctx context.Context, id attest.KeyID, certificate []byte) error {
	return s.client.HSet(ctx, signersKey, hex.EncodeToString(id[:]), certificate).Err()
}

func (s *signers) get(ctx context.Context, id attest.KeyID) ([]byte, error) {
	der, err := s.client.HGet(ctx, signersKey, hex.EncodeToString(id[:])).Bytes()
	if errors.Is(err, redis.Nil) {
		return nil, fmt.Errorf("%w: its key has no certificate", attest.ErrForged)
	}
	return der, err
}

// showSigner keeps a certificate of the authority for the key where forwarders look, as
// long as the process runs.
func (p *process) showSigner(ctx context.Context, b *backend) error {
	authority, err := control.OpenAuthority(ctx, p.vault(b.shared, b.key), control.AuthorityOptions{})
	if err != nil {
		return otherKey(err, b.key)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: authority.Certificate().Raw})
	if err := wholefile.Write(p.dir.file(authorityFile), text, 0o644); err != nil {
		return fmt.Errorf("save the authority's certificate: %w", err)
	}
	certificate, err := authority.SignRecords(b.record.Public())
	if err != nil {
		return err
	}
	put := func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, signerPatience)
		defer cancel()
		return b.signers.put(ctx, b.record.ID(), certificate.Raw)
	}
	_ = put(ctx) // Redis may be away; the next try is soon
	p.run("signer", func(ctx context.Context) error {
		made := time.Now()
		for wait.For(ctx, signerEvery) {
			if time.Since(made) > signerRenewed {
				next, err := authority.SignRecords(b.record.Public())
				if err != nil {
					return err
				}
				certificate, made = next, time.Now()
			}
			_ = put(ctx) // other parts report that Redis is away
		}
		return nil
	})
	return nil
}

// believer believes keys that an authority vouches for. The authority is known when the
// process has joined; until then no key is believed.
type believer struct {
	signers *signers
	roots   atomic.Pointer[func() (*x509.CertPool, error)]
}

func (b *believer) trust(client *redis.Client) attest.Trust {
	b.signers = &signers{client}
	return attest.Trust{Verifier: attest.NewVerifier(b.key)}
}

// from sets the authorities of a trust, from now on.
func (b *believer) from(roots func() (*x509.CertPool, error)) { b.roots.Store(&roots) }

// key gives the public key of an id.
func (b *believer) key(ctx context.Context, id attest.KeyID) (ed25519.PublicKey, error) {
	roots := b.roots.Load()
	if roots == nil {
		return nil, errors.New("the cluster of this node is not known yet")
	}
	pool, err := (*roots)()
	if err != nil {
		return nil, err
	}
	der, err := b.signers.get(ctx, id)
	if err != nil {
		return nil, err
	}
	public, err := control.VerifyRecords(der, pool, time.Now())
	if err != nil || attest.IDOf(public) != id {
		return nil, fmt.Errorf("%w: %w", attest.ErrForged, errors.Join(err, errors.New("the cluster's authority does not vouch for its key")))
	}
	return public, nil
}

// fileRoots trusts the authorities in a file.
func fileRoots(path string) func() (*x509.CertPool, error) {
	return func() (*x509.CertPool, error) {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("--cluster-ca: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("--cluster-ca: %s holds no certificate", path)
		}
		return pool, nil
	}
}
