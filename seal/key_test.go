package seal

import (
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"
	"testing"
)

func newKey(t testing.TB) Key {
	t.Helper()
	k, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestKeyAsText(t *testing.T) {
	k := newKey(t)
	again, err := ParseKey(" " + k.Secret() + "\n")
	if err != nil || again != k {
		t.Fatalf("ParseKey(Secret()) = %v, %v", again, err)
	}
	public, err := ParsePublicKey(k.Public().String())
	if err != nil || public != k.Public() {
		t.Fatalf("ParsePublicKey(String()) = %v, %v", public, err)
	}
	for _, text := range []string{"", "tnxk_", k.Public().String() + "A", k.Public().String()[1:], k.Secret(), "tnxk_" + strings.Repeat("A", 43)} {
		if _, err := ParsePublicKey(text); err == nil {
			t.Errorf("ParsePublicKey(%q) took it", text)
		}
	}
	if _, err := ParseKey(k.Public().String()); err == nil {
		t.Error("ParseKey took a public key")
	}
}

// Diffie-Hellman with these points of RFC 7748 gives zero, whoever the peer is.
func TestWeakPublicKeysAreRefused(t *testing.T) {
	for _, point := range []string{
		"0000000000000000000000000000000000000000000000000000000000000000",
		"0100000000000000000000000000000000000000000000000000000000000000",
		"e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
		"5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	} {
		b, err := hex.DecodeString(point)
		if err != nil {
			t.Fatal(err)
		}
		if k, err := PublicKeyOf(b); err == nil {
			t.Errorf("PublicKeyOf took %v", k)
		}
	}
}

func TestKeyIsNotPrinted(t *testing.T) {
	k := newKey(t)
	secret := strings.TrimPrefix(k.Secret(), secretPrefix)
	for _, shown := range []string{fmt.Sprint(k), fmt.Sprintf("%+v %#v", k, k), fmt.Sprintf("%v", struct{ K Key }{k}), fmt.Sprintf("%x", k)} {
		if strings.Contains(shown, secret) || strings.Contains(shown, hex.EncodeToString(k.secret[:])) {
			t.Errorf("shows the secret: %s", shown)
		}
	}
}

func TestPhrase(t *testing.T) {
	a, b, c := newKey(t).Public(), newKey(t).Public(), newKey(t).Public()
	phrase := Phrase(a, b)
	if !regexp.MustCompile(`^(\d{5} ){7}\d{5}$`).MatchString(phrase) {
		t.Errorf("the phrase is %q", phrase)
	}
	if Phrase(b, a) != phrase {
		t.Error("the two ends see different phrases")
	}
	if Phrase(a, c) == phrase {
		t.Error("another key has the same phrase")
	}
	// Agents of all versions must show the same.
	var x, y PublicKey
	x[0], y[0] = 9, 10
	const want = "11860 61118 66379 63766 03064 62981 71266 31248"
	if got := Phrase(x, y); got != want {
		t.Errorf("Phrase(9, 10) = %q, want %q", got, want)
	}
}
