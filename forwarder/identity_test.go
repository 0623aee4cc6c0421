package forwarder_test

import (
	"crypto/tls"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/tunnox-net/tunnox/transport"
)

// certificate is the forwarder's TLS identity in tests, one for all of them.
var certificate = sync.OnceValues(func() (tls.Certificate, error) {
	dir, err := os.MkdirTemp("", "forwarder-identity")
	if err != nil {
		return tls.Certificate{}, err
	}
	defer os.RemoveAll(dir)
	return transport.LoadOrCreateIdentity(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), "localhost")
})

func identity(t testing.TB) tls.Certificate {
	t.Helper()
	c, err := certificate()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func pin(t testing.TB) transport.Pin { return transport.PinOf(identity(t).Leaf) }
