package transport_test

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"github.com/tunnox-net/tunnox/test/pace"
	"github.com/tunnox-net/tunnox/transport"
	"github.com/tunnox-net/tunnox/transport/transporttest"
)

func TestMain(m *testing.M) {
	if address := os.Getenv(spliceAt); address != "" {
		spliceUntilKilled(address)
		return
	}
	goleak.VerifyTestMain(m)
}

func TestMemory(t *testing.T) {
	transporttest.Run(t, func(t testing.TB) (transport.Session, transport.Session) {
		a, b := transport.Pipe()
		t.Cleanup(func() { _ = a.Close() })
		return a, b
	})
}

func TestTLS(t *testing.T) {
	l, pin := listen(t)
	transporttest.Run(t, func(t testing.TB) (transport.Session, transport.Session) { return connect(t, l, pin) })
}

// Over WebSocket the session is in the TLS around it, or in TLS inside of it.
func TestWebSocket(t *testing.T) {
	l, pin := listen(t)
	transporttest.Run(t, func(t testing.TB) (transport.Session, transport.Session) {
		return connectOver(t, transport.DialWSS, l, pin)
	})
}

func TestWebSocketWithTLSInside(t *testing.T) {
	l, pin := listen(t)
	transporttest.Run(t, func(t testing.TB) (transport.Session, transport.Session) {
		return connectOver(t, transport.DialWS, l, pin)
	})
}

func listen(t testing.TB) (*transport.TLSListener, transport.Pin) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cert := identity(t)
	l, err := transport.ListenTLS(ln, transport.ListenConfig{Certificate: cert}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l, transport.PinOf(cert.Leaf)
}

func identity(t testing.TB) tls.Certificate {
	t.Helper()
	dir := t.TempDir()
	cert, err := transport.LoadOrCreateIdentity(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func connect(t testing.TB, l *transport.TLSListener, pin transport.Pin) (transport.Session, transport.Session) {
	t.Helper()
	return connectOver(t, transport.DialTLS, l, pin)
}

func connectOver(t testing.TB, dial transport.DialFunc, l *transport.TLSListener, pin transport.Pin) (transport.Session, transport.Session) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), pace.Guard)
	defer cancel()
	a, err := dial(ctx, l.Addr().String(), transport.DialConfig{Pins: []transport.Pin{pin}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	b, err := l.Accept(ctx)
	if err != nil {
		t.Fatal(err)
	}
	b.Admit()
	t.Cleanup(func() { _ = b.Close() })
	return a, b
}
