package wire

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestClaimCodes(t *testing.T) {
	mine, err := NewCredential()
	if err != nil {
		t.Fatal(err)
	}
	other, err := NewCredential()
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	make := func(id int64, name string) ClaimCode {
		text, err := mine.ClaimCode(id, name, now.Add(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		code, err := ParseClaimCode(" " + text + "\n")
		if err != nil {
			t.Fatal(err)
		}
		return code
	}
	anybody, anns := make(200000007, ""), make(200000007, "Ann")
	for name, c := range map[string]struct {
		code ClaimCode
		key  []byte
		user string
		at   time.Time
		good bool
	}{
		"anybody":          {anybody, mine.PublicKey(), "eve", now, true},
		"ann":              {anns, mine.PublicKey(), "aNN", now, true},
		"not ann":          {anns, mine.PublicKey(), "eve", now, false},
		"not anybody":      {anns, mine.PublicKey(), "", now, false},
		"another key":      {anybody, other.PublicKey(), "ann", now, false},
		"no key":           {anybody, nil, "ann", now, false},
		"expired":          {anybody, mine.PublicKey(), "ann", now.Add(time.Hour), false},
		"another client":   {ClaimCode{ClientID: 200000008, ExpiresAt: anybody.ExpiresAt, signature: anybody.signature}, mine.PublicKey(), "ann", now, false},
		"longer":           {ClaimCode{ClientID: 200000007, ExpiresAt: anybody.ExpiresAt.Add(time.Hour), signature: anybody.signature}, mine.PublicKey(), "ann", now, false},
		"bound let loose":  {ClaimCode{ClientID: 200000007, ExpiresAt: anns.ExpiresAt, signature: anns.signature}, mine.PublicKey(), "ann", now, false},
		"no signature yet": {ClaimCode{ClientID: 200000007, ExpiresAt: anns.ExpiresAt}, mine.PublicKey(), "ann", now, false},
	} {
		if err := c.code.Verify(c.key, c.user, c.at); (err == nil) != c.good {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := mine.ClaimCode(0, "", now); err == nil {
		t.Error("a code without a client")
	}
	if _, err := (Credential{}).ClaimCode(1, "", now); err == nil {
		t.Error("a code without a credential")
	}
	for _, bad := range []string{"", "tnc_", "tnc_AAAA", mine.AuthCode(), "tnc_" + strings.Repeat("A", 110), "tnc_" + strings.Repeat("_", 110)} {
		if _, err := ParseClaimCode(bad); !errors.Is(err, ErrClaimCode) || bad != "" && strings.Contains(err.Error(), bad) && len(bad) > 4 {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// FuzzParseClaimCode: what is accepted is the one spelling of a code.
func FuzzParseClaimCode(f *testing.F) {
	f.Add("tnc_AQAAAAAAC-vCBwAAAABpVm3A" + strings.Repeat("A", 86))
	f.Fuzz(func(t *testing.T, text string) {
		if c, err := ParseClaimCode(text); err == nil && (c.Client() <= 0 || len(c.signature) != SignatureSize) {
			t.Fatalf("%q was read as %+v", text, c)
		}
	})
}
