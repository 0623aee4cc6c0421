package basicauth

import (
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Pass is what a cookie says: who may come in where, and until when.
type Pass struct {
	Host     string // that was asked for, in its one form
	Mapping  int64
	Username string
	Ends     time.Time // to the second
}

// message is what is signed. A host and a number have no NUL in them, and a username
// stands last.
func (p Pass) message() []byte {
	return fmt.Appendf(nil, "tunnox visitor 1\x00%s\x00%d\x00%d\x00%s", p.Host, p.Mapping, p.Ends.Unix(), p.Username)
}

var cookieText = base64.RawURLEncoding.Strict()

// Sign gives the cookie's value: the end and the username, which the one who checks it
// cannot know, and the signature over all.
func (k Key) Sign(p Pass) string {
	return fmt.Sprintf("1.%d.%s.%s", p.Ends.Unix(), cookieText.EncodeToString([]byte(p.Username)),
		cookieText.EncodeToString(ed25519.Sign(k.private(), p.message())))
}

// maxCookie bounds what is looked at.
const maxCookie = 1024

// ReadPass gives what a cookie claims, before it is verified.
func ReadPass(value, host string, mapping int64) (p Pass, signature []byte, ok bool) {
	parts := strings.Split(value, ".")
	if len(value) > maxCookie || len(parts) != 4 || parts[0] != "1" {
		return p, nil, false
	}
	seconds, err := strconv.ParseInt(parts[1], 10, 64)
	name, err2 := cookieText.DecodeString(parts[2])
	signature, err3 := cookieText.DecodeString(parts[3])
	p = Pass{Host: host, Mapping: mapping, Username: string(name), Ends: time.Unix(seconds, 0)}
	return p, signature, err == nil && err2 == nil && err3 == nil
}

// Verify reports whether somebody with the password signed the pass.
func (k Kept) Verify(p Pass, signature []byte) bool {
	return len(k.public) == ed25519.PublicKeySize && ed25519.Verify(k.public, p.message(), signature)
}
