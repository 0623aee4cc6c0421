package acme

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/tunnox-net/tunnox/test/services"
)

// What is ignored looks now and then whether a lock has been given back.
func TestMain(m *testing.M) {
	services.Main(m, goleak.IgnoreAnyFunction("github.com/caddyserver/certmagic.keepLockfileFresh"))
}

// limit bounds what a test waits for; it decides nothing.
const limit = time.Minute

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// world is an authority, and keepers whose challenges are answered for it.
type world struct {
	t       *testing.T
	ca      *services.Pebble
	storage certmagic.Storage
	wanted  sync.Map // hosts that somebody has
	port    int      // where the authority looks
	answers atomic.Pointer[Keeper]
}

func newWorld(t *testing.T, validity time.Duration) *world {
	t.Helper()
	w := &world{t: t, storage: &certmagic.FileStorage{Path: t.TempDir()}}
	dns := services.StartDNS(t)
	dns.SetAddress("*.example.org", "127.0.0.1")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	server := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, in *http.Request) {
		host, _, _ := net.SplitHostPort(in.Host)
		c, err := w.answers.Load().Challenge(in.Context(), host)
		if err != nil || c.Token != path.Base(in.URL.Path) {
			http.NotFound(rw, in)
			return
		}
		fmt.Fprint(rw, c.Authorization)
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close(); <-done })
	w.port = l.Addr().(*net.TCPAddr).Port
	w.ca = services.StartPebble(t, services.PebbleOptions{HTTPPort: w.port, DNS: dns.Addr, Validity: validity})
	return w
}

// open makes a keeper that runs.
func (w *world) open(change ...func(*Config)) *Keeper {
	w.t.Helper()
	text, err := os.ReadFile(w.ca.Root)
	must(w.t, err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(text)
	config := Config{Directory: w.ca.Directory, Roots: roots, Storage: w.storage, Logger: slog.New(slog.DiscardHandler),
		Wanted: func(_ context.Context, host string) (bool, error) { _, ok := w.wanted.Load(host); return ok, nil }}
	for _, c := range change {
		c(&config)
	}
	k := Open(config)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = k.Run(ctx) }()
	w.t.Cleanup(func() { cancel(); <-done; k.Close() })
	w.answers.Store(k)
	return k
}

// certificate waits for the certificate of a host.
func certificate(t *testing.T, k *Keeper, host string) *tls.Certificate {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	c, err := k.Certificate(ctx, host)
	must(t, err)
	must(t, c.Leaf.VerifyHostname(host))
	return c
}

// A certificate that comes near its end is replaced while it is used, with another key.
func TestCertificateIsRenewed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 30*time.Second)
	w.wanted.Store("shop.example.org", true)
	k := w.open(func(c *Config) { c.RenewEvery = 200 * time.Millisecond })
	first := certificate(t, k, "shop.example.org")
	for deadline := time.Now().Add(limit); ; time.Sleep(50 * time.Millisecond) {
		now := certificate(t, k, "shop.example.org")
		if time.Now().After(now.Leaf.NotAfter) {
			t.Fatal("an expired certificate is given")
		}
		if !now.Leaf.Equal(first.Leaf) {
			if string(now.Leaf.RawSubjectPublicKeyInfo) == string(first.Leaf.RawSubjectPublicKeyInfo) {
				t.Error("the new certificate has the key of the old one")
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the certificate is not renewed")
		}
	}
}

// Who asks for a host that nobody has is refused, and the authority hears nothing. When
// a host has gone its certificate is given no more.
func TestUnwantedHostsGetNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 0)
	k := w.open()
	if _, err := k.Certificate(t.Context(), "nobody.example.org"); !errors.Is(err, ErrUnwanted) {
		t.Errorf("a host that nobody has: %v", err)
	}
	w.wanted.Store("shop.example.org", true)
	certificate(t, k, "shop.example.org")
	w.wanted.Delete("shop.example.org")
	if _, err := k.Certificate(t.Context(), "shop.example.org"); !errors.Is(err, ErrUnwanted) {
		t.Errorf("a host that has gone: %v", err)
	}
	k.sweep(t.Context())
	if ends := k.ends(); len(ends) != 0 {
		t.Errorf("the certificates of %v are still renewed", ends)
	}
	// An order whose challenge cannot be shown is made once more, with the other kind: which
	// kind is first is drawn.
	if w.ca.Issued() != 1 || strings.Contains(w.ca.Said(), "nobody") {
		t.Errorf("the authority gave %d certificates, want 1", w.ca.Issued())
	}
	orders := w.ca.Orders()
	// It comes back, and the stored certificate is good enough.
	w.wanted.Store("shop.example.org", true)
	certificate(t, k, "shop.example.org")
	if w.ca.Orders() != orders {
		t.Errorf("the authority has %d orders more, want none", w.ca.Orders()-orders)
	}
}

// Many visitors of a host, at several keepers with one storage, cost one order.
func TestManyWhoAskCostOneOrder(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 0)
	w.wanted.Store("shop.example.org", true)
	keepers := []*Keeper{w.open(), w.open()}
	serials := sync.Map{}
	var asking sync.WaitGroup
	for i := range 20 {
		asking.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			c, err := keepers[i%2].Certificate(ctx, "shop.example.org")
			if err != nil {
				t.Error(err)
				return
			}
			serials.Store(c.Leaf.SerialNumber.String(), true)
		})
	}
	asking.Wait()
	n := 0
	serials.Range(func(any, any) bool { n++; return true })
	if n != 1 || w.ca.Issued() != 1 || w.ca.Accounts() != 1 {
		t.Errorf("%d certificates of %d that were given, to %d accounts; want one of each", n, w.ca.Issued(), w.ca.Accounts())
	}
}

// Who does not wait long enough hears that the certificate is being ordered, and the
// order goes on. A host whose order has failed is left alone for a while, which ends.
func TestOrderOutlivesWhoAskedAndFailureRests(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 0)
	w.wanted.Store("shop.example.org", true)
	w.wanted.Store("shop.elsewhere.net", true) // the name server does not know it
	k := w.open(func(c *Config) { c.Retry = 100 * time.Millisecond })
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := k.Certificate(ended, "shop.example.org"); !errors.Is(err, ErrOrdered) {
		t.Errorf("who does not wait: %v", err)
	}
	certificate(t, k, "shop.example.org")

	ctx, stop := context.WithTimeout(t.Context(), limit)
	defer stop()
	if _, err := k.Certificate(ctx, "shop.elsewhere.net"); !errors.Is(err, ErrFailed) {
		t.Fatalf("a host that the authority cannot find: %v", err)
	}
	orders := w.ca.Orders()
	if _, err := k.Certificate(ctx, "shop.elsewhere.net"); !errors.Is(err, ErrFailed) || w.ca.Orders() != orders {
		t.Errorf("at once again: %v, %d orders more", err, w.ca.Orders()-orders)
	}
	for w.ca.Orders() == orders && ctx.Err() == nil {
		_, _ = k.Certificate(ctx, "shop.elsewhere.net")
		time.Sleep(20 * time.Millisecond)
	}
	if ctx.Err() != nil {
		t.Error("the host is never tried again")
	}
}

// However many hosts have failed, the next one that fails is not ordered again at once.
func TestEachFailureIsRemembered(t *testing.T) {
	k := &Keeper{config: Config{Retry: time.Hour, Logger: slog.New(slog.DiscardHandler)}, failures: map[string]*failure{}}
	soon := time.Now().Add(time.Minute)
	for i := range maxFailures {
		k.failures[fmt.Sprint(i)] = &failure{until: soon.Add(time.Duration(i) * time.Second)}
	}
	k.remember("shop.example.org", ErrFailed)
	if k.failures["shop.example.org"] == nil || k.failures["0"] != nil || len(k.failures) > maxFailures {
		t.Errorf("of %d failures the new one is kept: %v, the one that is over first: %v", len(k.failures), k.failures["shop.example.org"] != nil, k.failures["0"] != nil)
	}
}

// What certmagic tells to its logger may have whole objects in it, with keys: they are
// not printed.
func TestLogHasPlainValuesOnly(t *testing.T) {
	var b strings.Builder
	log := zapOver(slog.New(slog.NewTextHandler(&b, &slog.HandlerOptions{Level: slog.LevelDebug})))
	object := struct{ key string }{"hidden"}
	log.With(zap.Any("storage", object)).Error("word", zap.Any("other", &object), zap.String("host", "shop"))
	if got := b.String(); strings.Contains(got, "hidden") || !strings.Contains(got, "host=shop") || !strings.Contains(got, "word") {
		t.Errorf("the log has %s", got)
	}
}
