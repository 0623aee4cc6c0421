package httpapi

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"runtime"
	"strings"

	"golang.org/x/crypto/argon2"
)

// The cost of one password: argon2id with 19 MiB, two passes, one lane (the
// least that OWASP leaves for servers), some 25 to 40 ms of one core. It is what
// a guess costs somebody who stole the log, and what a request with a password
// costs us, so that few of them run at once.
const (
	argonMemory = 19 * 1024 // KiB
	argonPasses = 2
	argonLanes  = 1
	argonKey    = 32 // bytes
	argonSalt   = 16 // bytes
)

// passwords turns passwords into hashes, on at most half of the cores: the
// others keep answering while somebody creates users in a loop. When many wait,
// the next of them is sent away with errBusy.
type passwords struct {
	turns *turns
	who   standing
}

func newPasswords() passwords {
	return passwords{turns: &turns{free: max(1, runtime.GOMAXPROCS(0)/2)}, who: asCaller}
}

// of is for somebody of another standing.
func (p passwords) of(who standing) passwords { return passwords{turns: p.turns, who: who} }

// hash gives the PHC string under a new salt.
func (p passwords) hash(ctx context.Context, password string) (string, error) {
	salt := make([]byte, argonSalt)
	rand.Read(salt) // never fails (crypto/rand)
	return p.derive(ctx, password, salt)
}

// fingerprint gives the same string for the same password and key. The log keeps
// a hash of every request that has an idempotency key; a plain hash over a
// password would be the cheapest way to guess it.
func (p passwords) fingerprint(ctx context.Context, password, key string) (string, error) {
	salt := sha256.Sum256([]byte("idempotency\x00" + key))
	return p.derive(ctx, password, salt[:argonSalt])
}

// verify reports whether the password is the one of the hash. Against no hash it
// takes as long and says no, so that the time does not tell which names exist.
func (p passwords) verify(ctx context.Context, kept, password string) (bool, error) {
	salt := make([]byte, argonSalt)
	if kept != "" {
		parts := strings.Split(kept, "$") // "", argon2id, v=, m=,t=,p=, salt, hash
		var err error
		if len(parts) != 6 || parts[1] != "argon2id" {
			return false, errPassword
		}
		if salt, err = base64.RawStdEncoding.DecodeString(parts[4]); err != nil {
			return false, errPassword
		}
	}
	made, err := p.derive(ctx, password, salt)
	if err != nil {
		return false, err
	}
	// Derived with today's cost: a hash of another cost does not verify, and would
	// have to be derived with its own.
	return kept != "" && subtle.ConstantTimeCompare([]byte(made), []byte(kept)) == 1, nil
}

func (p passwords) derive(ctx context.Context, password string, salt []byte) (string, error) {
	done, err := p.turns.take(ctx, p.who)
	if err != nil {
		return "", err
	}
	defer done()
	key := argon2.IDKey([]byte(password), salt, argonPasses, argonMemory, argonLanes, argonKey)
	text := base64.RawStdEncoding.EncodeToString
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, argonMemory, argonPasses, argonLanes, text(salt), text(key)), nil
}
