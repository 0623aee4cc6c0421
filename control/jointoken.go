package control

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/tunnox-net/tunnox/domain"
)

const (
	joinPrefix = "tnxj_"
	secretSize = 32
	// joinLength is the length of a whole token: the prefix and 64 bytes in base64url.
	joinLength = len(joinPrefix) + 86
	// secretAge is how long a control plane uses the secret that it has read. After a
	// rotation at another control plane the old secret is refused this much later, and
	// somebody who guesses cannot make the vault work.
	secretAge = time.Second
)

// ErrJoinToken: the text is not a join token. The error says nothing of the text, which
// may be the cluster's secret with a typing error.
var ErrJoinToken = errors.New(`a join token is "tnxj_" and 86 characters of base64url`)

// JoinToken lets a new node into the cluster: the secret proves the node to the control
// plane, the pin proves the control plane to the node.
type JoinToken struct {
	secret [secretSize]byte
	pin    [sha256.Size]byte
}

// ParseJoinToken reads the output of Text, with space around it allowed. Each token has
// exactly one text.
func ParseJoinToken(text string) (JoinToken, error) {
	text = strings.TrimSpace(text)
	if len(text) != joinLength || !strings.HasPrefix(text, joinPrefix) {
		return JoinToken{}, ErrJoinToken
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(text[len(joinPrefix):])
	if err != nil || len(raw) != secretSize+sha256.Size {
		return JoinToken{}, ErrJoinToken
	}
	var t JoinToken
	copy(t.secret[:], raw)
	copy(t.pin[:], raw[secretSize:])
	return t, nil
}

// LoadJoinToken reads a file that Save wrote.
func LoadJoinToken(file string) (JoinToken, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return JoinToken{}, fmt.Errorf("load join token: %w", err)
	}
	t, err := ParseJoinToken(string(text))
	if err != nil {
		return JoinToken{}, fmt.Errorf("load join token from %s: %w", file, err)
	}
	return t, nil
}

// Text gives the token as ParseJoinToken reads it. It contains the secret.
func (t JoinToken) Text() string {
	return joinPrefix + base64.RawURLEncoding.EncodeToString(append(t.secret[:], t.pin[:]...))
}

// Save writes the token to a file that only its owner can read.
func (t JoinToken) Save(file string) error { return writeSecret(file, []byte(t.Text()+"\n")) }

// Pin is the SHA-256 of the cluster authority's public key.
func (t JoinToken) Pin() [sha256.Size]byte { return t.pin }

// String hides the secret, so that a token in a log line does no harm.
func (t JoinToken) String() string { return joinPrefix + "..." }

// GoString hides the secret from %#v.
func (t JoinToken) GoString() string { return t.String() }

// codeJoinRefused is the code for a node with a wrong join token.
const codeJoinRefused domain.Code = "join_refused"

// JoinTokens stores the cluster's join token in the vault. There is one token at a
// time, and tokens with limits are made of it ([Pass]), so a rotation keeps out everybody
// with an old one.
type JoinTokens struct {
	vault Vault
	pin   [sha256.Size]byte
	now   func() time.Time

	mu     sync.Mutex
	secret []byte    // guarded by mu; nil = read it
	readAt time.Time // guarded by mu
}

// OpenJoinTokens makes the first join token when there is none.
func OpenJoinTokens(ctx context.Context, vault Vault, authority *Authority) (*JoinTokens, error) {
	t := &JoinTokens{vault: vault, pin: authority.Pin(), now: authority.now}
	err := vault.Create(ctx, secretJoin, drawSecret())
	if err != nil && !errors.Is(err, ErrPresent) {
		return nil, fmt.Errorf("create join token: %w", err)
	}
	if _, err := t.Current(ctx); err != nil {
		return nil, err
	}
	return t, nil
}

func drawSecret() []byte {
	secret := make([]byte, secretSize)
	rand.Read(secret) // never fails
	return secret
}

// Current gives the present token.
func (t *JoinTokens) Current(ctx context.Context) (JoinToken, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.read(ctx); err != nil {
		return JoinToken{}, err
	}
	return t.token(t.secret), nil
}

func (t *JoinTokens) token(secret []byte) JoinToken {
	return JoinToken{secret: [secretSize]byte(secret), pin: t.pin}
}

func (t *JoinTokens) read(ctx context.Context) error {
	if t.secret != nil && t.now().Sub(t.readAt).Abs() < secretAge {
		return nil
	}
	secret, err := t.vault.Load(ctx, secretJoin)
	if err == nil && len(secret) != secretSize {
		err = fmt.Errorf("it has %d bytes, not %d", len(secret), secretSize)
	}
	if err != nil {
		return fmt.Errorf("read join token: %w", err)
	}
	t.secret, t.readAt = secret, t.now()
	return nil
}

// Rotate replaces the token by a new one. Nodes that have joined stay in the cluster.
func (t *JoinTokens) Rotate(ctx context.Context) (JoinToken, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.secret = nil
	if err := t.read(ctx); err != nil {
		return JoinToken{}, err
	}
	next := drawSecret()
	if err := t.vault.Replace(ctx, secretJoin, t.secret, next); err != nil {
		t.secret = nil
		return JoinToken{}, fmt.Errorf("rotate join token: %w", err)
	}
	t.secret, t.readAt = next, t.now()
	return t.token(next), nil
}

// admit refuses a secret that is neither the current token's nor that of a token with limits. It
// takes the same time whatever the secret is. once is the id of a token for one use.
func (t *JoinTokens) admit(ctx context.Context, secret []byte) (once string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.read(ctx); err != nil {
		return "", err
	}
	standing := subtle.ConstantTimeCompare(secret, t.secret) == 1
	pass, good := readPass(t.secret, secret)
	switch {
	case standing:
		return "", nil
	case !good:
		return "", &domain.Error{Code: codeJoinRefused, Message: "The join token is not the cluster's present one."}
	case pass.ended(t.now()):
		return "", &domain.Error{Code: codeJoinRefused, Message: "The join token has expired."}
	}
	return pass.once(), nil
}

// Pass gives a token with conditions, made of the current one: a rotation ends it, too.
func (t *JoinTokens) Pass(ctx context.Context, p Pass) (JoinToken, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.read(ctx); err != nil {
		return JoinToken{}, err
	}
	secret, err := p.secret(t.secret)
	return JoinToken{secret: secret, pin: t.pin}, err
}
