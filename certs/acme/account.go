package acme

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/mholt/acmez/v3/acme"
)

// storedAccount is the form in which the account is stored.
type storedAccount struct {
	Account acme.Account `json:"account"`
	Key     []byte       `json:"key"` // PKCS #8
}

func (i *issuer) accountKey() string { return "acme/" + i.IssuerKey() + "/account.json" }

// accountToUse gives the account at the authority. All keepers with one storage have
// one; it is made before the first order.
func (i *issuer) accountToUse(ctx context.Context) (acme.Account, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.account != nil {
		return *i.account, nil
	}
	lock := "account_" + i.IssuerKey()
	if err := i.config.Storage.Lock(ctx, lock); err != nil {
		return acme.Account{}, fmt.Errorf("wait for the account at the authority: %w", err)
	}
	defer func() { _ = i.config.Storage.Unlock(context.WithoutCancel(ctx), lock) }() // a lock that is left behind expires
	account, err := i.loadAccount(ctx)
	if errors.Is(err, fs.ErrNotExist) {
		account, err = i.newAccount(ctx)
	}
	if err == nil {
		account, err = i.contacted(ctx, account)
	}
	if err != nil {
		return acme.Account{}, err
	}
	i.account = &account
	return account, nil
}

func (i *issuer) loadAccount(ctx context.Context) (acme.Account, error) {
	text, err := i.config.Storage.Load(ctx, i.accountKey())
	if err != nil {
		return acme.Account{}, fmt.Errorf("load the account at the authority: %w", err)
	}
	var stored storedAccount
	if err := json.Unmarshal(text, &stored); err != nil {
		return acme.Account{}, fmt.Errorf("read the account at the authority: %w", err)
	}
	key, err := x509.ParsePKCS8PrivateKey(stored.Key)
	if err != nil {
		return acme.Account{}, fmt.Errorf("read the key of the account at the authority: %w", err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return acme.Account{}, fmt.Errorf("the account at the authority has a key of type %T, which cannot sign", key)
	}
	stored.Account.PrivateKey = signer
	return stored.Account, nil
}

func (i *issuer) newAccount(ctx context.Context) (acme.Account, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return acme.Account{}, err
	}
	account, err := i.client.NewAccount(ctx, acme.Account{Contact: i.contact(), TermsOfServiceAgreed: true, PrivateKey: key})
	if err != nil {
		return acme.Account{}, fmt.Errorf("make an account at the authority: %w", err)
	}
	i.config.Logger.Info("made an account at the certificate authority", "authority", i.config.Directory, "account", account.Location)
	return account, i.saveAccount(ctx, account)
}

func (i *issuer) saveAccount(ctx context.Context, account acme.Account) error {
	key, err := x509.MarshalPKCS8PrivateKey(account.PrivateKey)
	if err != nil {
		return fmt.Errorf("store the account at the authority: %w", err)
	}
	text, err := json.Marshal(storedAccount{Account: account, Key: key})
	if err != nil {
		return fmt.Errorf("store the account at the authority: %w", err)
	}
	return i.config.Storage.Store(ctx, i.accountKey(), text)
}

// contacted makes sure that the authority has the present address.
func (i *issuer) contacted(ctx context.Context, account acme.Account) (acme.Account, error) {
	if slices.Equal(account.Contact, i.contact()) || i.config.Contact == "" {
		return account, nil
	}
	key := account.PrivateKey
	account.Contact = i.contact()
	account, err := i.client.UpdateAccount(ctx, account)
	if err != nil {
		return account, fmt.Errorf("change the address of the account at the authority: %w", err)
	}
	account.PrivateKey, account.Contact = key, i.contact() // not every authority shows them
	return account, i.saveAccount(ctx, account)
}

func (i *issuer) contact() []string {
	if i.config.Contact == "" {
		return nil
	}
	return []string{"mailto:" + i.config.Contact}
}

// forgetAccount has another account made.
func (i *issuer) forgetAccount(ctx context.Context) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.account = nil
	return i.config.Storage.Delete(ctx, i.accountKey())
}

// leafOf reads the first certificate of a chain in PEM.
func leafOf(text []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("no certificate in PEM")
	}
	return x509.ParseCertificate(block.Bytes)
}
