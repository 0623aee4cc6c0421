package control

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

func TestJoinTokenText(t *testing.T) {
	p := newPlane(t)
	token, err := p.tokens.Current(t.Context())
	must(t, err)
	if token.Pin() != p.authority.Pin() {
		t.Error("the token does not pin the authority")
	}
	text := token.Text()
	again, err := ParseJoinToken("  " + text + "\n")
	if err != nil || again != token {
		t.Fatalf("parsed %v, %v", again, err)
	}
	for _, shown := range []string{fmt.Sprint(token), fmt.Sprintf("%+v", token), fmt.Sprintf("%#v", token)} {
		if strings.Contains(shown, text[5:20]) || shown != "tnxj_..." {
			t.Errorf("shows %s", shown)
		}
	}
	file := t.TempDir() + "/join-token"
	must(t, token.Save(file))
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if read, err := LoadJoinToken(file); err != nil || read != token {
		t.Errorf("%v, %v", read, err)
	}
	must(t, os.WriteFile(file, []byte(text[:50]), 0o600))
	if _, err := LoadJoinToken(file); err == nil || strings.Contains(err.Error(), text[5:20]) {
		t.Errorf("half a token: %v", err)
	}
	if _, err := LoadJoinToken(file + "x"); err == nil {
		t.Error("loaded what is not there")
	}
}

func TestJoinTokenRotates(t *testing.T) {
	p := newPlane(t)
	ctx := t.Context()
	elsewhere, err := OpenJoinTokens(ctx, p.vault, p.authority) // another control plane
	must(t, err)
	old, err := p.tokens.Current(ctx)
	must(t, err)
	must(t, second(elsewhere.admit(ctx, old.secret[:])))
	next, err := p.tokens.Rotate(ctx)
	must(t, err)
	if next == old || next.Pin() != old.Pin() {
		t.Error("rotating must change the secret and nothing else")
	}
	wantCode(t, second(p.tokens.admit(ctx, old.secret[:])), codeJoinRefused)
	must(t, second(p.tokens.admit(ctx, next.secret[:])))
	p.clock.advance(2 * time.Second) // what the other one remembers is old then
	wantCode(t, second(elsewhere.admit(ctx, old.secret[:])), codeJoinRefused)
	must(t, second(elsewhere.admit(ctx, next.secret[:])))
	wantCode(t, second(p.tokens.admit(ctx, nil)), codeJoinRefused)
	wantCode(t, second(p.tokens.admit(ctx, next.secret[:31])), codeJoinRefused)
}

// Two control planes rotate at the same moment: both read the same token, one
// writes first, and the other one is told so instead of giving out a token that
// admits nobody.
func TestOfTwoRotationsAtOnceOneWins(t *testing.T) {
	p := newPlane(t)
	ctx := t.Context()
	faster := p.tokens
	meeting := &meetingVault{Vault: p.vault}
	slower, err := OpenJoinTokens(ctx, meeting, p.authority)
	must(t, err)
	var won JoinToken
	meeting.before = func() { // the slower one has read, and has not written
		won, err = faster.Rotate(ctx)
		must(t, err)
	}
	if lost, err := slower.Rotate(ctx); !errors.Is(err, ErrChanged) {
		t.Fatalf("the slower rotation gave %v, %v, want %v", lost, err, ErrChanged)
	}
	for name, tokens := range map[string]*JoinTokens{"faster": faster, "slower": slower} {
		if is, err := tokens.Current(ctx); err != nil || is != won {
			t.Errorf("the %s one has another token than the one that was written: %v", name, err)
		}
		must(t, second(tokens.admit(ctx, won.secret[:])))
	}
	meeting.before = func() {}
	must(t, second(slower.Rotate(ctx))) // it reads anew, and nothing is in its way
}

// meetingVault does something else between the read and the write of a rotation.
type meetingVault struct {
	Vault
	before func()
}

func (v *meetingVault) Replace(ctx context.Context, name string, old, next []byte) error {
	v.before()
	return v.Vault.Replace(ctx, name, old, next)
}

func FuzzParseJoinToken(f *testing.F) {
	f.Add(JoinToken{}.Text())
	f.Add(JoinToken{secret: [32]byte{1, 2, 3}, pin: [32]byte{255}}.Text() + "\n")
	f.Add("tnxj_")
	f.Add("tnxj_" + strings.Repeat("A", 86))
	f.Add("tnxj_" + strings.Repeat("A", 85) + "B")
	f.Add("tnx_" + strings.Repeat("A", 87))
	f.Fuzz(func(t *testing.T, text string) {
		token, err := ParseJoinToken(text)
		if err != nil {
			if strings.Contains(err.Error(), text) && len(text) > 5 {
				t.Errorf("the error shows the text: %v", err)
			}
			return
		}
		if token.Text() != strings.TrimSpace(text) {
			t.Errorf("%q stands for the token of %q", text, token.Text())
		}
	})
}
