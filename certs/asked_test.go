package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// teller is who has the certificates.
type teller struct {
	calls  atomic.Int64
	answer func(host string) (*tls.Certificate, error)
}

func (x *teller) ask(_ context.Context, host string) (*tls.Certificate, error) {
	x.calls.Add(1)
	return x.answer(host)
}

// lasting makes a certificate that nobody could use, which ends after d.
func lasting(name string, d time.Duration) *tls.Certificate {
	return &tls.Certificate{Leaf: &x509.Certificate{Raw: []byte(name), NotAfter: time.Now().Add(d)}}
}

// given asks for a certificate and gives its name, or what is wrong.
func given(t *testing.T, a *Asked, host string, patience time.Duration) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := a.Certificate(ctx, host)
	switch {
	case errors.Is(err, ErrNoCertificate):
		return "none"
	case errors.Is(err, ErrOrdered):
		return "ordered"
	case err != nil:
		return err.Error()
	}
	return string(c.Leaf.Raw)
}

func expect(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %q, want %q", what, got, want)
	}
}

func TestAskedCertificatesAreKeptAndRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := &teller{answer: func(string) (*tls.Certificate, error) { return lasting("first", time.Hour), nil }}
		a := NewAsked(x.ask, slog.New(slog.DiscardHandler))
		defer a.Close()
		for range 10 {
			expect(t, "a known host", given(t, a, "shop", time.Second), "first")
		}
		if n := x.calls.Load(); n != 1 {
			t.Errorf("%d questions for one host", n)
		}

		// It was renewed: visitors get the old one until the new one is there.
		x.answer = func(string) (*tls.Certificate, error) { return lasting("second", 2*time.Hour), nil }
		time.Sleep(askAgain + time.Second)
		expect(t, "an old answer", given(t, a, "shop", time.Second), "first")
		synctest.Wait()
		expect(t, "after the question", given(t, a, "shop", time.Second), "second")

		// Who has the certificates is away: the known one is good until its end.
		x.answer = func(string) (*tls.Certificate, error) { return nil, errors.New("away") }
		time.Sleep(askAgain + time.Second)
		expect(t, "while nobody answers", given(t, a, "shop", time.Second), "second")
		time.Sleep(2 * time.Hour)
		expect(t, "after its end", given(t, a, "shop", time.Second), "away")

		// The host has gone.
		x.answer = func(string) (*tls.Certificate, error) { return lasting("third", time.Hour), nil }
		time.Sleep(noneFor + time.Second)
		expect(t, "a host that is back", given(t, a, "shop", time.Second), "third")
		x.answer = func(string) (*tls.Certificate, error) { return nil, ErrNoCertificate }
		time.Sleep(askAgain + time.Second)
		given(t, a, "shop", time.Second)
		synctest.Wait()
		expect(t, "a host that has gone", given(t, a, "shop", time.Second), "none")
	})
}

func TestAskedWaitsForAnOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		x := &teller{answer: func(string) (*tls.Certificate, error) {
			if time.Since(began) < 3*time.Second {
				return nil, ErrOrdered
			}
			return lasting("new", time.Hour), nil
		}}
		a := NewAsked(x.ask, slog.New(slog.DiscardHandler))
		defer a.Close()
		expect(t, "a visitor without patience", given(t, a, "shop", 1100*time.Millisecond), "ordered")
		expect(t, "a visitor with patience", given(t, a, "shop", 10*time.Second), "new")
		if took := time.Since(began); took > 4*time.Second {
			t.Errorf("the visitor has waited %v", took)
		}
	})
}

// Hosts without a certificate are remembered for a moment, and neither they nor the
// others fill the memory.
func TestAskedIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := &teller{answer: func(host string) (*tls.Certificate, error) {
			if host[0] == 'n' {
				return nil, ErrNoCertificate
			}
			return lasting(host, time.Hour), nil
		}}
		a := NewAsked(x.ask, slog.New(slog.DiscardHandler))
		defer a.Close()
		for range 10 {
			expect(t, "a host that nobody has", given(t, a, "nobody", time.Second), "none")
		}
		if n := x.calls.Load(); n != 1 {
			t.Errorf("%d questions for a host that nobody has", n)
		}
		given(t, a, "first", time.Second)
		for i := range maxAsked + maxNone {
			given(t, a, fmt.Sprintf("n%d", i), time.Second)
			time.Sleep(time.Millisecond)
			given(t, a, fmt.Sprintf("h%d", i), time.Second)
			if i%1000 == 0 {
				given(t, a, "first", time.Second) // it is used all the time
			}
		}
		if len(a.kept) > maxAsked || len(a.none) > maxNone {
			t.Errorf("%d certificates and %d hosts without one are kept", len(a.kept), len(a.none))
		}
		if a.kept["first"] == nil || a.kept["h0"] != nil {
			t.Error("not the ones that were used longest ago have gone")
		}
	})
}
