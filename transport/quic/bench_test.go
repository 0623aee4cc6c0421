//go:build unix

package quic_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/pace"
	"github.com/tunnox-net/tunnox/transport"
)

// BenchmarkBesideTLS moves bytes over one session, on one stream and on eight, over TLS
// and over QUIC in turn.
func BenchmarkBesideTLS(b *testing.B) {
	dir := b.TempDir()
	cert, err := transport.LoadOrCreateIdentity(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
	if err != nil {
		b.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	tls, err := transport.ListenTLS(ln, transport.ListenConfig{Certificate: cert}, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	defer tls.Close()
	l, pin := listen(b, nil)
	overTLS := func(b *testing.B) (transport.Session, transport.Session) {
		ctx, cancel := context.WithTimeout(b.Context(), pace.Guard)
		defer cancel()
		agent, err := transport.DialTLS(ctx, tls.Addr().String(), transport.DialConfig{Pins: []transport.Pin{transport.PinOf(cert.Leaf)}})
		if err != nil {
			b.Fatal(err)
		}
		server, err := tls.Accept(ctx)
		if err != nil {
			b.Fatal(err)
		}
		server.Admit()
		return agent, server
	}
	overQUIC := func(b *testing.B) (transport.Session, transport.Session) { return connect(b, l, pin) }
	for _, streams := range []int{1, 8} {
		for name, begin := range map[string]func(*testing.B) (transport.Session, transport.Session){"tls": overTLS, "quic": overQUIC} {
			b.Run(fmt.Sprintf("%d/%s", streams, name), func(b *testing.B) { move(b, begin, streams) })
		}
	}
}

func move(b *testing.B, begin func(*testing.B) (transport.Session, transport.Session), streams int) {
	const chunk = 64 << 10
	agent, server := begin(b)
	defer agent.Close()
	defer server.Close()
	b.SetBytes(chunk)
	b.ResetTimer()
	before := used()
	ended := make(chan error, streams)
	streams = min(streams, b.N)
	for i := range streams {
		out, err := server.Open(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		go func() {
			data := make([]byte, chunk)
			for range (b.N + i) / streams {
				if _, err := out.Write(data); err != nil {
					b.Error(err)
					return
				}
			}
			_ = out.CloseWrite()
		}()
	}
	for range streams {
		go func() {
			in, err := agent.Accept(b.Context())
			for buf := make([]byte, 256<<10); err == nil; {
				_, err = in.Read(buf)
			}
			ended <- err
		}()
	}
	for range streams {
		if err := <-ended; !errors.Is(err, io.EOF) {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	b.ReportMetric((used()-before).Seconds()/(float64(b.N)*chunk/1e9), "cpu-s/GB")
}

func used() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
