package oidcauth

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/basicauth"
)

func key(t testing.TB) Key {
	t.Helper()
	k, err := ParseKey(NewKey())
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// A secret is opened with its key, for its issuer and client id, and in no other way.
func TestSecretsAreSealed(t *testing.T) {
	k := key(t)
	kept, err := k.Seal("https://login.example.org", "tunnox", "correct horse")
	if err != nil || strings.Contains(kept, "horse") {
		t.Fatalf("%q, %v", kept, err)
	}
	if again, err := k.Seal("https://login.example.org", "tunnox", "correct horse"); err != nil || again != kept {
		t.Errorf("sealed again it is %q, %v", again, err)
	}
	if secret, err := k.open(kept, "https://login.example.org", "tunnox"); err != nil || secret != "correct horse" {
		t.Errorf("opened: %q, %v", secret, err)
	}
	for name, open := range map[string]func() (string, error){
		"for another issuer":  func() (string, error) { return k.open(kept, "https://evil.example.org", "tunnox") },
		"for another client":  func() (string, error) { return k.open(kept, "https://login.example.org", "other") },
		"with another border": func() (string, error) { return k.open(kept, "https://login.example.orgt", "unnox") },
		"with another key":    func() (string, error) { return key(t).open(kept, "https://login.example.org", "tunnox") },
		"what was cut off":    func() (string, error) { return k.open(kept[:len(kept)-4], "https://login.example.org", "tunnox") },
		"nothing":             func() (string, error) { return k.open("", "", "") },
	} {
		if secret, err := open(); err == nil {
			t.Errorf("%s: opened %q", name, secret)
		}
	}
	cookies, ok := Cookies(kept)
	pass := basicauth.Pass{Host: "app", Mapping: 1, Username: "ann", Ends: time.Unix(1_900_000_000, 0)}
	_, signature, read := basicauth.ReadPass(k.signer("https://login.example.org", "tunnox").Sign(pass), "app", 1)
	if !ok || !read || !cookies.Verify(pass, signature) {
		t.Error("a cookie is not verified by what is kept")
	}
	if _, signature, _ := basicauth.ReadPass(key(t).signer("https://login.example.org", "tunnox").Sign(pass), "app", 1); cookies.Verify(pass, signature) {
		t.Error("a cookie of another key is verified")
	}
	if none, ok := Cookies("$oidc"); ok || none.Verify(pass, signature) {
		t.Error("what is not sealed verifies a cookie")
	}
}

// A provider that does not answer holds nobody up, is asked once, and few of its visitors
// wait. One that is not reached over https is not asked.
func TestSlowProvider(t *testing.T) {
	asked, answer := make(chan struct{}, 100), make(chan struct{})
	slow := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, in *http.Request) {
		asked <- struct{}{}
		select {
		case <-answer:
		case <-in.Context().Done():
		}
		rw.WriteHeader(http.StatusInternalServerError)
	}))
	defer slow.Close()
	d := NewDesk(key(t), &http.Client{Transport: &http.Transport{}}, true)
	defer d.Close()
	settings := Settings{Issuer: slow.URL, ClientID: "tunnox"}
	now, cancel := context.WithCancel(t.Context())
	cancel()
	for range 3 {
		if _, err := d.Do(now, settings, Step{Mapping: 1, State: "a"}); !errors.Is(err, ErrPending) {
			t.Errorf("while the provider thinks: %v", err)
		}
	}
	<-asked
	for i := range maxOfMapping {
		_, err := d.Do(now, settings, Step{Mapping: 1, State: strings.Repeat("b", i+1)})
		if i < maxOfMapping-1 != errors.Is(err, ErrPending) {
			t.Errorf("visitor %d: %v", i, err)
		}
	}
	if _, err := d.Do(now, settings, Step{Mapping: 2, State: "a"}); !errors.Is(err, ErrPending) {
		t.Errorf("a visitor of another mapping: %v", err)
	}
	close(answer)
	if _, err := d.Do(t.Context(), settings, Step{Mapping: 1, State: "a"}); err == nil || errors.Is(err, ErrPending) {
		t.Errorf("a provider that fails: %v", err)
	}

	strict := NewDesk(key(t), &http.Client{Transport: &http.Transport{}}, false)
	defer strict.Close()
	plain := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a provider over http is asked") }))
	defer plain.Close()
	if _, err := strict.Do(t.Context(), Settings{Issuer: plain.URL, ClientID: "tunnox"}, Step{Mapping: 1}); err == nil || !strings.Contains(err.Error(), "https://") {
		t.Errorf("a provider over http: %v", err)
	}
}
