package control

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"time"
)

// Pass is what a join token may be limited to. The secret of such a token holds the
// limits and proves with the standing secret that a control plane made it, so that no
// list of tokens has to be kept:
//
//	8 bytes   drawn; the id of a token for one use
//	4 bytes   the second since 1970 at which it ends; 0 = never
//	1 byte    1 = for one use
//	3 bytes   0
//	16 bytes  of HMAC-SHA256 over these
type Pass struct {
	Once    bool
	Expires time.Time // zero = never
}

const (
	passHead = 16
	passOnce = 1
)

// secret makes the secret of a token with these limits.
func (p Pass) secret(standing []byte) (secret [secretSize]byte, err error) {
	rand.Read(secret[:8]) // never fails
	if !p.Expires.IsZero() {
		at := p.Expires.Unix()
		if at <= 0 || at > 1<<32-1 {
			return secret, fmt.Errorf("make join token: it cannot end at %s", p.Expires)
		}
		binary.BigEndian.PutUint32(secret[8:], uint32(at))
	}
	if p.Once {
		secret[12] = passOnce
	}
	copy(secret[passHead:], passProof(standing, secret[:passHead]))
	return secret, nil
}

func passProof(standing, head []byte) []byte {
	mac := hmac.New(sha256.New, standing)
	mac.Write([]byte("tunnox join token\x00"))
	mac.Write(head)
	return mac.Sum(nil)[:secretSize-passHead]
}

// readPass reads the secret of a token with limits. It is good when this cluster made it.
func readPass(standing, secret []byte) (p pass, good bool) {
	var whole [secretSize]byte
	copy(whole[:], secret)
	copy(p.head[:], whole[:])
	return p, hmac.Equal(whole[passHead:], passProof(standing, p.head[:])) && len(secret) == secretSize
}

type pass struct{ head [passHead]byte }

func (p pass) ended(now time.Time) bool {
	at := binary.BigEndian.Uint32(p.head[8:])
	return at != 0 && now.Unix() >= int64(at)
}

// once gives the id of a token for one use, "" for another one.
func (p pass) once() string {
	if p.head[12] != passOnce {
		return ""
	}
	return hex.EncodeToString(p.head[:8])
}
