package basicauth_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/basicauth"
)

func TestPassword(t *testing.T) {
	salt := basicauth.NewSalt()
	key := basicauth.Derive("correct horse", salt)
	sealed := key.Seal(salt)
	if strings.Contains(sealed, "correct") {
		t.Errorf("sealed as %s", sealed)
	}
	kept, ok := basicauth.Parse(sealed)
	if !ok || !kept.Opens(basicauth.Derive("correct horse", kept.Salt)) || kept.Opens(basicauth.Derive("correct mule", kept.Salt)) {
		t.Errorf("%s does not tell passwords apart", sealed)
	}
	for _, other := range []string{"", sealed[1:], sealed + "A", sealed[:len(sealed)-1], strings.Replace(sealed, "m=19456", "m=99999", 1), strings.Replace(sealed, "argon2id", "argon2i", 1)} {
		if _, ok := basicauth.Parse(other); ok {
			t.Errorf("%q is read", other)
		}
	}
	if bytes.Equal(salt, basicauth.NewSalt()) {
		t.Error("two salts are equal")
	}
	if a, b, c := basicauth.NewSalt("a", "b"), basicauth.NewSalt("a", "b"), basicauth.NewSalt("ab", ""); !bytes.Equal(a, b) || bytes.Equal(a, c) {
		t.Error("salts of texts are not those of the texts")
	}
}

// A cookie holds for what it was signed for, and cannot be made from what is kept.
func TestCookie(t *testing.T) {
	salt := basicauth.NewSalt("test")
	key, other := basicauth.Derive("one", salt), basicauth.Derive("two", salt)
	kept, _ := basicauth.Parse(key.Seal(salt))
	pass := basicauth.Pass{Host: "app.example.org", Mapping: 1001, Username: "ann.x", Ends: time.Unix(1_900_000_000, 0)}
	value := key.Sign(pass)
	good := func(value, host string, mapping int64) bool {
		p, signature, ok := basicauth.ReadPass(value, host, mapping)
		return ok && kept.Verify(p, signature)
	}
	if p, _, _ := basicauth.ReadPass(value, pass.Host, pass.Mapping); p != pass || !good(value, pass.Host, pass.Mapping) {
		t.Errorf("%s says %+v", value, p)
	}
	if strings.ContainsAny(value, " ;,\"\\") {
		t.Errorf("%s is no value of a cookie", value)
	}
	for name, bad := range map[string]bool{
		"another host":    good(value, "other.example.org", pass.Mapping),
		"another mapping": good(value, pass.Host, 1002),
		"a later end":     good(strings.Replace(value, "1900000000", "1900000001", 1), pass.Host, pass.Mapping),
		"another name":    good(strings.Replace(value, "YW5uLng", "YW5uLnk", 1), pass.Host, pass.Mapping),
		"another key":     good(other.Sign(pass), pass.Host, pass.Mapping),
		"nothing":         good("", pass.Host, pass.Mapping),
		"half of it":      good(value[:len(value)-4], pass.Host, pass.Mapping),
	} {
		if bad {
			t.Errorf("a cookie for %s lets in", name)
		}
	}
}

func FuzzCookie(f *testing.F) {
	f.Add("1.1900000000.YW5u.AAAA")
	kept, _ := basicauth.Parse(basicauth.Key{}.Seal(basicauth.NewSalt("x")))
	f.Fuzz(func(t *testing.T, value string) {
		if p, signature, ok := basicauth.ReadPass(value, "h", 1); ok && kept.Verify(p, signature) {
			t.Errorf("%q lets in", value)
		}
	})
}
