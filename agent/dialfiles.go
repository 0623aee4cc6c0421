package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/tunnox-net/tunnox/transport"
	"github.com/tunnox-net/tunnox/webroot"
	"github.com/tunnox-net/tunnox/wire"
	"github.com/tunnox-net/tunnox/wire/wirepb"
)

// filesOptions are the options of a mapping whose service is a directory.
type filesOptions struct {
	Files struct {
		Listing  bool `json:"listing"`
		DotFiles bool `json:"dot_files"`
	} `json:"files"`
}

// dialFiles answers the requests of the stream from the directory that it names.
func dialFiles(_ context.Context, t *target, open *wirepb.Open) (transport.Duplex, error) {
	at := place{filePlace, open.GetService()}
	if !at.valid() {
		return nil, fmt.Errorf("directory %q: %w", open.GetService(), wire.Malformed)
	}
	top, err := t.allowsPlace(protocolOf(open), at)
	if err != nil {
		return nil, err
	}
	var options filesOptions
	if text := open.GetOptions(); text != "" {
		if err := json.Unmarshal([]byte(text), &options); err != nil {
			return nil, fmt.Errorf("the options of a directory: %w", wire.Malformed)
		}
	}
	root, err := openBelow(top, at.path)
	if err != nil {
		return nil, &wire.Refusal{Code: wire.DialUnreachable, Message: "the directory cannot be opened at the target agent"}
	}
	_ = root.Close() // each request opens it anew
	handler := &webroot.Handler{Listing: options.Files.Listing, DotFiles: options.Files.DotFiles,
		Open: func() (*os.Root, error) { return openBelow(top, at.path) }}
	near, far := transport.Pair()
	t.agent.start(func() { serveOne(far, handler, t.agent.log) })
	return near, nil
}

// openBelow opens a directory that is, or is below, one that the policy allows. A link on
// the way from there must not lead out of what is allowed.
func openBelow(top, path string) (*os.Root, error) {
	root, err := os.OpenRoot(top)
	if err != nil || top == path {
		return root, err
	}
	defer root.Close()
	rest, err := filepath.Rel(top, path)
	if err != nil {
		return nil, err
	}
	return root.OpenRoot(rest)
}

// headTime bounds the head of a request. Between requests there is no bound: the
// forwarder keeps connections, and ends them.
const headTime = 30 * time.Second

// serveOne serves the requests of one connection, until it ends.
func serveOne(conn net.Conn, handler http.Handler, log *slog.Logger) {
	l := &oneConn{conn: conn, closed: make(chan struct{})}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: headTime, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		ConnState: func(_ net.Conn, state http.ConnState) {
			if state == http.StateClosed || state == http.StateHijacked {
				_ = l.Close()
			}
		}}
	_ = server.Serve(l) // ends with the connection
}

// oneConn is a listener for one connection.
type oneConn struct {
	conn   net.Conn
	given  bool // by Accept, which one goroutine calls
	once   sync.Once
	closed chan struct{}
}

// Accept implements [net.Listener].
func (l *oneConn) Accept() (net.Conn, error) {
	if !l.given {
		l.given = true
		return l.conn, nil
	}
	<-l.closed
	return nil, net.ErrClosed
}

// Close implements [net.Listener].
func (l *oneConn) Close() error { l.once.Do(func() { close(l.closed) }); return nil }

// Addr implements [net.Listener].
func (l *oneConn) Addr() net.Addr { return l.conn.LocalAddr() }
