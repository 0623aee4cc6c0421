package httpapi

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"golang.org/x/crypto/argon2"

	"github.com/tunnox-net/tunnox/domain"
)

func TestEveryCodeOfDomainHasAStatus(t *testing.T) {
	for code, want := range map[domain.Code]int{
		domain.CodeInvalid:             422,
		domain.CodeUserNotFound:        404,
		domain.CodeClientNotFound:      404,
		domain.CodeMappingNotFound:     404,
		domain.CodeUserDisabled:        409,
		domain.CodeClientDisabled:      409,
		domain.CodeUsernameTaken:       409,
		domain.CodeEmailTaken:          409,
		domain.CodeListenerTaken:       409,
		domain.CodeIDTaken:             409,
		domain.CodeClientNotOwned:      403,
		domain.CodeCommandsRefused:     403,
		domain.CodeProtocolUnavailable: 422,
		domain.CodeQuotaClients:        403,
		domain.CodeQuotaMappings:       403,
		domain.CodeQuotaActive:         403,
		domain.CodeQuotaKeys:           403,
		domain.CodeQuotaShares:         403,
		domain.CodeScopeDenied:         403,
		domain.CodeClaimRefused:        403,
		domain.CodeRegistrationOff:     403,
		domain.CodeLoginRefused:        401,
		domain.CodeLoginEnded:          401,
		domain.CodeKeyNotFound:         404,
		domain.CodeShareNotFound:       404,
		domain.CodeShareEnded:          409,
		domain.CodeClientClaimed:       409,
		domain.CodeVersionConflict:     412,
		domain.CodeIdempotencyMismatch: 422,
		domain.CodeStoreUnavailable:    503,
		domain.CodeUnknownEvent:        500, // ours to explain, not the caller's
		"a code of tomorrow":           500,
	} {
		if got := statusOf(code); got != want {
			t.Errorf("%s is %d, want %d", code, got, want)
		}
	}
}

func TestOurFailuresTellNothing(t *testing.T) {
	for _, status := range []int{500, 502, 504} {
		p := fromHuma(status, "unexpected error occurred", []error{errors.New("secret")})
		if p.Status != status || p.Code != "internal" || len(p.Errors) != 0 || strings.Contains(fmt.Sprint(p), "secret") {
			t.Errorf("%d became %+v", status, p)
		}
	}
	if p := fromHuma(http.StatusInternalServerError, "cannot read request body", []error{errors.New("unexpected EOF")}); p.Status != 400 {
		t.Errorf("a body that broke off is %d", p.Status)
	}
	if p := fromHuma(http.StatusRequestTimeout, "", nil); p.Code != "request_timeout" {
		t.Errorf("a body that never came is %s", p.Code)
	}
}

func TestPasswordHashIsOneAnybodyCanCheck(t *testing.T) {
	p := newPasswords()
	hash, err := p.hash(t.Context(), "correct horse")
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(hash, "$")
	if len(parts) != 6 || parts[1] != "argon2id" || parts[2] != "v=19" || parts[3] != "m=19456,t=2,p=1" {
		t.Fatalf("hash is %s", hash)
	}
	salt, err := base64.RawStdEncoding.DecodeString(parts[4])
	if err != nil || len(salt) != 16 {
		t.Fatalf("salt %q: %v", parts[4], err)
	}
	if key := argon2.IDKey([]byte("correct horse"), salt, 2, 19456, 1, 32); base64.RawStdEncoding.EncodeToString(key) != parts[5] {
		t.Error("the hash is not of the password")
	}
	if again, _ := p.hash(t.Context(), "correct horse"); again == hash {
		t.Error("two hashes of one password are equal: the salt is not new")
	}
	one, _ := p.fingerprint(t.Context(), "correct horse", "k")
	two, _ := p.fingerprint(t.Context(), "correct horse", "k")
	other, _ := p.fingerprint(t.Context(), "correct horse", "k2")
	if one != two || one == other {
		t.Error("a fingerprint is not of the password and the key")
	}
}

func TestPasswordsWaitTheirTurn(t *testing.T) {
	p := passwords{turns: &turns{}}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.hash(ctx, "correct horse"); !errors.Is(err, context.Canceled) {
		t.Errorf("a caller who left waited on: %v", err)
	}
}

func BenchmarkPassword(b *testing.B) {
	p := newPasswords()
	for b.Loop() {
		if _, err := p.hash(b.Context(), "correct horse"); err != nil {
			b.Fatal(err)
		}
	}
}
