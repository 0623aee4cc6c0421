package basicauth

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"strings"

	"golang.org/x/crypto/argon2"
)

// The cost of one derivation: argon2id with 19 MiB, two passes, one lane, the least that
// OWASP leaves for servers.
const (
	memory     = 19 * 1024 // KiB
	passes     = 2
	lanes      = 1
	saltLength = 16 // bytes
)

var (
	prefix = fmt.Sprintf("$argon2id-ed25519$v=%d$m=%d,t=%d,p=%d$", argon2.Version, memory, passes, lanes)
	text   = base64.RawStdEncoding.Strict()
)

// Key is what a password becomes under a salt. Who has it can sign cookies.
type Key [ed25519.SeedSize]byte

// Derive derives the key of a password. It is slow, and takes 19 MiB while it runs.
func Derive(password string, salt []byte) Key {
	return Key(argon2.IDKey([]byte(password), salt, passes, memory, lanes, ed25519.SeedSize))
}

// NewSalt draws a salt; with of it is the same for the same texts, so that a request
// that is repeated is the same request.
func NewSalt(of ...string) []byte {
	salt := make([]byte, saltLength)
	if len(of) == 0 {
		rand.Read(salt) // never fails (crypto/rand)
		return salt
	}
	h := sha256.New()
	h.Write([]byte("tunnox password of a visitor"))
	for _, s := range of {
		fmt.Fprintf(h, "\x00%d\x00%s", len(s), s)
	}
	return h.Sum(salt[:0])[:saltLength]
}

func (k Key) private() ed25519.PrivateKey { return ed25519.NewKeyFromSeed(k[:]) }

// Seal writes what is kept of a key and its salt.
func (k Key) Seal(salt []byte) string {
	public := k.private().Public().(ed25519.PublicKey)
	return prefix + text.EncodeToString(salt) + "$" + text.EncodeToString(public)
}

// Kept is what is kept of a password.
type Kept struct {
	Salt   []byte
	public ed25519.PublicKey
}

// Parse reads what Seal wrote. ok is false for all else, also for another cost.
func Parse(kept string) (k Kept, ok bool) {
	rest, ok := strings.CutPrefix(kept, prefix)
	salt, public, both := strings.Cut(rest, "$")
	var err, err2 error
	k.Salt, err = text.DecodeString(salt)
	k.public, err2 = text.DecodeString(public)
	return k, ok && both && err == nil && err2 == nil && len(k.Salt) == saltLength && len(k.public) == ed25519.PublicKeySize
}

// Opens reports whether a key, derived under this salt, is that of the password.
func (k Kept) Opens(key Key) bool {
	return subtle.ConstantTimeCompare(key.private().Public().(ed25519.PublicKey), k.public) == 1
}

// Public gives the half of a key that verifies cookies.
func (k Key) Public() ed25519.PublicKey {
	return ed25519.PublicKey(append([]byte(nil), k.private()[ed25519.SeedSize:]...))
}

// KeptOf gives what verifies cookies of a key that no password was made to. It opens
// nothing.
func KeptOf(public ed25519.PublicKey) Kept { return Kept{public: public} }
