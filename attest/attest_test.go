package attest_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"testing"

	"github.com/tunnox-net/tunnox/attest"
)

func key(t testing.TB) *attest.Key {
	t.Helper()
	k, err := attest.ParseKey(attest.NewKey())
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func items(n int) [][]byte {
	all := make([][]byte, n)
	for i := range all {
		all[i] = fmt.Appendf(nil, "item %d of %d", i, n)
	}
	return all
}

// Every item of a group of any size has its proof, and no other.
func TestEachItemHasItsProofAndNoOther(t *testing.T) {
	k := key(t)
	v := k.Verifier()
	for n := range 40 {
		all := items(n)
		proofs := k.Attest("test", all...)
		if len(proofs) != n {
			t.Fatalf("%d proofs of %d items", len(proofs), n)
		}
		for i, item := range all {
			for j, proof := range proofs {
				if err := v.Check(t.Context(), "test", item, proof); (err == nil) != (i == j) {
					t.Fatalf("item %d of %d with the proof of %d: %v", i, n, j, err)
				}
			}
			if err := v.Check(t.Context(), "another", item, proofs[i]); !errors.Is(err, attest.ErrForged) {
				t.Fatalf("for another purpose: %v", err)
			}
		}
	}
}

// No byte of a proof can be changed, and no other key's proof counts.
func TestAChangedProofIsNone(t *testing.T) {
	k := key(t)
	v := k.Verifier()
	all := items(11)
	proof := k.Attest("test", all...)[10]
	for i := range proof {
		forged := bytes.Clone(proof)
		forged[i] ^= 1
		if err := v.Check(t.Context(), "test", all[10], forged); !errors.Is(err, attest.ErrForged) {
			t.Errorf("byte %d changed: %v", i, err)
		}
	}
	for n := range len(proof) {
		if err := v.Check(t.Context(), "test", all[10], proof[:n]); !errors.Is(err, attest.ErrForged) {
			t.Errorf("%d bytes of it: %v", n, err)
		}
	}
	if err := v.Check(t.Context(), "test", all[10], key(t).Attest("test", all...)[10]); !errors.Is(err, attest.ErrForged) {
		t.Errorf("of another key: %v", err)
	}
}

// A key is asked for until it is known, and again when all are forgotten.
func TestKeysAreAskedForOnce(t *testing.T) {
	k := key(t)
	asked, away := 0, errors.New("away")
	v := attest.NewVerifier(func(context.Context, attest.KeyID) (ed25519.PublicKey, error) {
		if asked++; asked == 1 {
			return nil, away
		}
		return k.Public(), nil
	})
	proof := k.Attest("test", []byte("x"))[0]
	check := func() error { return v.Check(t.Context(), "test", []byte("x"), proof) }
	if err := check(); !errors.Is(err, away) {
		t.Fatal(err)
	}
	for range 3 {
		if err := check(); err != nil || asked != 2 {
			t.Fatalf("asked %d times: %v", asked, err)
		}
	}
	if v.Forget(); check() != nil || asked != 3 {
		t.Errorf("asked %d times", asked)
	}
}

func TestSealedIsForOnePlace(t *testing.T) {
	k := key(t)
	sealed := k.Seal([]byte("anna@example.org"), "user 1")
	if bytes.Contains(sealed, []byte("anna")) {
		t.Error("it can be read")
	}
	if plain, err := k.Open(sealed, "user 1"); err != nil || string(plain) != "anna@example.org" {
		t.Errorf("%q, %v", plain, err)
	}
	for _, open := range []func() ([]byte, error){
		func() ([]byte, error) { return k.Open(sealed, "user 2") },
		func() ([]byte, error) { return key(t).Open(sealed, "user 1") },
		func() ([]byte, error) { return k.Open(sealed[1:], "user 1") },
		func() ([]byte, error) { return k.Open(nil, "user 1") },
	} {
		if plain, err := open(); err == nil {
			t.Errorf("opened: %q", plain)
		}
	}
	if a, b := k.Blind("anna"), k.Blind("anna"); a != b || a == k.Blind("bert") || a == key(t).Blind("anna") {
		t.Error("a blinded name must be the same under one key, and another for others")
	}
}

func TestKeysOfAnotherShapeAreRefused(t *testing.T) {
	for _, text := range []string{"", "tnxr_", "tnxr_AAAA", "tnxr_" + string(bytes.Repeat([]byte("A"), 44)), string(bytes.Repeat([]byte("A"), 43))} {
		if _, err := attest.ParseKey([]byte(text)); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
}

// FuzzCheck: no proof makes the check panic, or another item right.
func FuzzCheck(f *testing.F) {
	k, err := attest.ParseKey([]byte("tnxr_" + string(bytes.Repeat([]byte("A"), 43))))
	if err != nil {
		f.Fatal(err)
	}
	v := k.Verifier()
	for n := 1; n < 17; n += 5 {
		for i, proof := range k.Attest("test", items(n)...) {
			f.Add(items(n)[i], proof)
		}
	}
	f.Fuzz(func(t *testing.T, item, proof []byte) {
		if v.Check(t.Context(), "test", item, proof) == nil && !bytes.HasPrefix(item, []byte("item ")) {
			t.Errorf("%q was never attested", item)
		}
	})
}

func BenchmarkAttest(b *testing.B) {
	k := key(b)
	for _, n := range []int{1, 16} {
		all := items(n)
		proofs := k.Attest("test", all...)
		b.Run(fmt.Sprintf("attest/%d", n), func(b *testing.B) {
			for range b.N {
				k.Attest("test", all...)
			}
		})
		b.Run(fmt.Sprintf("check/%d", n), func(b *testing.B) {
			for range b.N {
				v := k.Verifier()
				for i, item := range all {
					if err := v.Check(b.Context(), "test", item, proofs[i]); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}
