package wire

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"
)

func goldenProof() Proof {
	return Proof{Version: 1, Nonce: bytes.Repeat([]byte{1}, NonceSize), Binding: bytes.Repeat([]byte{2}, BindingSize),
		ClientID: 600000000, Instance: "inst"}
}

func TestAuthCode(t *testing.T) {
	c, err := NewCredential()
	if err != nil {
		t.Fatal(err)
	}
	back, err := ParseAuthCode(" " + c.AuthCode() + "\n")
	if err != nil || !bytes.Equal(back.PublicKey(), c.PublicKey()) {
		t.Fatalf("%v", err)
	}
	code := c.AuthCode()
	for _, bad := range []string{"", "tnx_", code[:len(code)-1], code + "A", "TNX_" + code[4:], "tnx-" + code[4:],
		code[:len(code)-1] + "+", code[:20] + "\n" + code[21:], "tnx_" + strings.Repeat("A", 42) + "B"} {
		if _, err := ParseAuthCode(bad); !errors.Is(err, ErrAuthCode) {
			t.Errorf("%q was read: %v", bad, err)
		}
	}
	if text := fmt.Sprintf("%v %+v %#v %s", c, c, c, &c); strings.Contains(text, code[4:]) {
		t.Errorf("the secret shows in %q", text)
	}
	if (Credential{}).AuthCode() != "" || (Credential{}).PublicKey() != nil {
		t.Error("an empty credential has parts")
	}
	if _, err := (Credential{}).Sign(goldenProof()); err == nil {
		t.Error("an empty credential signs")
	}
}

// What another implementation must compute from the same seed and proof.
func TestGoldenProof(t *testing.T) {
	c, err := ParseAuthCode("tnx_" + strings.Repeat("A", 43))
	if err != nil {
		t.Fatal(err)
	}
	in, err := goldenProof().input()
	if err != nil {
		t.Fatal(err)
	}
	want := "tunnox agent proof\x00" + "\x00\x00\x00\x01" + strings.Repeat("\x01", 32) + strings.Repeat("\x02", 32) +
		"\x00\x00\x00\x00\x23\xc3\x46\x00" + "\x04inst"
	if string(in) != want {
		t.Errorf("the input is %x, want %x", in, want)
	}
	if got := hex.EncodeToString(c.PublicKey()); got != "3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29" {
		t.Errorf("public key %s", got)
	}
	sig, err := c.Sign(goldenProof())
	if err != nil {
		t.Fatal(err)
	}
	const wantSig = "633ccc7d2d8010efd189935cb01c0db74ea8d77938ad4241740bd3233faf96dd" +
		"e9063f8f60fc242cfd2613c7021c462221892f2747e4fd400362046273ab6e00"
	if got := hex.EncodeToString(sig); got != wantSig {
		t.Errorf("signature %s, want %s", got, wantSig)
	}
}

// A signature is good for one proof only: changing any part breaks it.
func TestVerify(t *testing.T) {
	c, _ := NewCredential()
	other, _ := NewCredential()
	sig, err := c.Sign(goldenProof())
	if err != nil {
		t.Fatal(err)
	}
	if err := Verify(c.PublicKey(), goldenProof(), sig); err != nil {
		t.Fatal(err)
	}
	flip := func(b []byte, i int) []byte { b = bytes.Clone(b); b[i] ^= 1; return b }
	for name, err := range map[string]error{
		"other key":    Verify(other.PublicKey(), goldenProof(), sig),
		"empty key":    Verify(nil, goldenProof(), sig),
		"short key":    Verify(c.PublicKey()[:31], goldenProof(), sig),
		"no signature": Verify(c.PublicKey(), goldenProof(), nil),
		"signature":    Verify(c.PublicKey(), goldenProof(), flip(sig, 63)),
		"version":      Verify(c.PublicKey(), with(func(p *Proof) { p.Version++ }), sig),
		"nonce":        Verify(c.PublicKey(), with(func(p *Proof) { p.Nonce = flip(p.Nonce, 31) }), sig),
		"binding":      Verify(c.PublicKey(), with(func(p *Proof) { p.Binding = flip(p.Binding, 0) }), sig),
		"client id":    Verify(c.PublicKey(), with(func(p *Proof) { p.ClientID++ }), sig),
		"instance":     Verify(c.PublicKey(), with(func(p *Proof) { p.Instance = "insu" }), sig),
	} {
		if !errors.Is(err, BadCredential) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, p := range map[string]Proof{
		"short nonce":    with(func(p *Proof) { p.Nonce = p.Nonce[1:] }),
		"no binding":     with(func(p *Proof) { p.Binding = nil }),
		"no instance":    with(func(p *Proof) { p.Instance = "" }),
		"large instance": with(func(p *Proof) { p.Instance = strings.Repeat("x", MaxInstance+1) }),
	} {
		if err := Verify(c.PublicKey(), p, sig); !errors.Is(err, Malformed) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := c.Sign(p); !errors.Is(err, Malformed) {
			t.Errorf("%s signed: %v", name, err)
		}
	}
	a, _ := NewNonce()
	b, _ := NewNonce()
	if len(a) != NonceSize || bytes.Equal(a, b) {
		t.Error("nonces repeat")
	}
}

func with(change func(*Proof)) Proof {
	p := goldenProof()
	change(&p)
	return p
}

func FuzzParseAuthCode(f *testing.F) {
	f.Add("tnx_" + strings.Repeat("A", 43))
	f.Add("")
	f.Fuzz(func(t *testing.T, code string) {
		c, err := ParseAuthCode(code)
		if err == nil && c.AuthCode() != strings.TrimSpace(code) {
			t.Fatalf("%q was read as %q", code, c.AuthCode())
		}
	})
}

func FuzzVerify(f *testing.F) {
	c, _ := NewCredential()
	f.Add([]byte("key"), []byte("nonce"), []byte("binding"), []byte("signature"), "instance")
	f.Add(c.PublicKey(), make([]byte, NonceSize), make([]byte, BindingSize), make([]byte, SignatureSize), "i")
	f.Fuzz(func(t *testing.T, key, nonce, binding, sig []byte, instance string) {
		p := Proof{Version: 1, Nonce: nonce, Binding: binding, Instance: instance}
		_ = Verify(key, p, sig) // must not panic, whatever the sizes
	})
}
