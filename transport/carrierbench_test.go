//go:build unix

package transport

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/tunnox-net/tunnox/test/pace"
)

// BenchmarkCarriers moves bytes over one session, in both directions in turn: up is from
// the side that dialled. coder/websocket is the library's connection with our multiplexer
// on it, as a reason for the frames of our own.
func BenchmarkCarriers(b *testing.B) {
	l, pin := startTLS(b, calm)
	listened := func(dial DialFunc) func(b *testing.B) (Session, Session) {
		return func(b *testing.B) (Session, Session) {
			ctx, cancel := context.WithTimeout(b.Context(), pace.Guard)
			defer cancel()
			s, err := dial(ctx, l.Addr().String(), DialConfig{Pins: []Pin{pin}})
			if err != nil {
				b.Fatal(err)
			}
			theirs, err := l.Accept(ctx)
			if err != nil {
				b.Fatal(err)
			}
			theirs.Admit()
			return s, theirs
		}
	}
	for _, carrier := range []struct {
		name  string
		begin func(*testing.B) (Session, Session)
	}{
		{"tls", listened(DialTLS)},
		{"wss", listened(DialWSS)},
		{"ws with tls inside", listened(DialWS)},
		{"coder/websocket", overLibrary},
	} {
		for _, way := range []string{"up", "down"} {
			b.Run(fmt.Sprintf("%s/%s", carrier.name, way), func(b *testing.B) {
				from, to := carrier.begin(b)
				defer from.Close()
				defer to.Close()
				if way == "down" {
					from, to = to, from
				}
				moveBytes(b, from, to)
			})
		}
	}
}

// moveBytes writes on one side and reads on the other.
func moveBytes(b *testing.B, from, to Session) {
	const chunk = 64 << 10
	b.SetBytes(chunk)
	out, err := from.Open(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	data := make([]byte, chunk)
	before := usedTime()
	b.ResetTimer()
	go func() {
		for range b.N {
			if _, err := out.Write(data); err != nil {
				b.Error(err)
				return
			}
		}
		_ = out.CloseWrite()
	}()
	in, err := to.Accept(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, 256<<10)
	for {
		if _, err = in.Read(buf); err != nil {
			break
		}
	}
	if err != io.EOF {
		b.Fatal(err)
	}
	b.StopTimer()
	b.ReportMetric((usedTime()-before).Seconds()/(float64(b.N)*chunk/1e9), "cpu-s/GB")
}

func usedTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// overLibrary has the multiplexer over coder/websocket's connections.
func overLibrary(b *testing.B) (Session, Session) {
	accepted := make(chan net.Conn, 1)
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{CompressionMode: websocket.CompressionDisabled})
		if err != nil {
			b.Error(err)
			return
		}
		c.SetReadLimit(-1)
		accepted <- websocket.NetConn(context.WithoutCancel(b.Context()), c, websocket.MessageBinary)
	}))
	b.Cleanup(s.Close)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	c, _, err := websocket.Dial(b.Context(), "wss"+s.URL[len("https"):], &websocket.DialOptions{HTTPClient: client, CompressionMode: websocket.CompressionDisabled})
	if err != nil {
		b.Fatal(err)
	}
	c.SetReadLimit(-1)
	binding := make([]byte, 32)
	return Multiplex(websocket.NetConn(context.WithoutCancel(b.Context()), c, websocket.MessageBinary), true, binding, SessionConfig{}),
		Multiplex(<-accepted, false, binding, SessionConfig{})
}
