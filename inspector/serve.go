package inspector

import (
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/tunnox-net/tunnox/transport"
)

// DefaultAddress is where the page is, or at the next free port after it.
const DefaultAddress = "127.0.0.1:4040"

// nextPorts is how many ports after the usual one are tried.
const nextPorts = 20

//go:embed page
var files embed.FS

// Server is an inspector with its page. It listens from the first Begin to Close.
type Server struct {
	*Inspector
	address string

	mu     sync.Mutex
	server *http.Server // nil: not begun
	url    string
	done   chan struct{}
}

// NewServer makes a server for an address, usually [DefaultAddress].
func NewServer(address string, log *slog.Logger) *Server {
	return &Server{Inspector: New(rand.Text(), log), address: address}
}

// Begin watches a mapping and gives the URL of the page, which holds the token.
func (s *Server) Begin(mapping int64) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.server == nil {
		l, err := listenNear(s.address)
		if err != nil {
			return "", err
		}
		s.url = fmt.Sprintf("http://%s/?token=%s", l.Addr(), s.token)
		s.server = &http.Server{Handler: s.Handler(), ReadHeaderTimeout: 10 * time.Second, MaxHeaderBytes: 64 << 10}
		s.done = make(chan struct{})
		go func() {
			defer close(s.done)
			_ = s.server.Serve(l)
		}()
	}
	s.Inspector.Begin(mapping)
	return s.url, nil
}

// Close ends the page.
func (s *Server) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.server == nil {
		return nil
	}
	err := s.server.Close()
	<-s.done
	s.server = nil
	return err
}

// listenNear opens an address, or the same with one of the next ports.
func listenNear(address string) (net.Listener, error) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		return nil, err
	}
	for n := range nextPorts {
		l, listenErr := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port+n)))
		if !errors.Is(listenErr, syscall.EADDRINUSE) {
			return l, listenErr
		}
		err = listenErr
	}
	return nil, err
}

// Handler serves the page and what it asks for. Everything but the page's own files wants
// the token, in the query or as a bearer token, so that no other page of the browser can
// ask.
func (i *Inspector) Handler() http.Handler {
	mux := http.NewServeMux()
	page, err := fs.Sub(files, "page")
	if err != nil {
		panic(err) // the files are part of the program
	}
	mux.Handle("GET /", http.FileServerFS(page))
	private := func(pattern string, serve http.HandlerFunc) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			token, bearer := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
			if !bearer {
				token = r.URL.Query().Get("token")
			}
			if subtle.ConstantTimeCompare([]byte(token), []byte(i.token)) != 1 {
				problem(w, http.StatusUnauthorized, "The token is missing or wrong: open the address that tunnox http --inspect printed.")
				return
			}
			serve(w, r)
		})
	}
	private("GET /api/exchanges", func(w http.ResponseWriter, _ *http.Request) { answer(w, i.list()) })
	private("DELETE /api/exchanges", func(w http.ResponseWriter, _ *http.Request) { i.clear(); answer(w, struct{}{}) })
	private("GET /api/exchanges/{id}", i.show)
	private("POST /api/exchanges/{id}/replay", i.replay)
	private("GET /api/live", i.live)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		w.Header().Set("Referrer-Policy", "no-referrer")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-store")
		mux.ServeHTTP(w, r)
	})
}

func answer(w http.ResponseWriter, value any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(value) // the page has gone, otherwise
}

func problem(w http.ResponseWriter, status int, sentence string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"status": status, "detail": sentence})
}

// asked gives the exchange that a request names, or answers that there is none.
func (i *Inspector) asked(w http.ResponseWriter, r *http.Request) *Exchange {
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err == nil {
		if x := i.get(id); x != nil {
			return x
		}
	}
	problem(w, http.StatusNotFound, "This request is not kept any more.")
	return nil
}

// shown is an exchange with its bodies decoded, as the page shows them.
type shown struct {
	*Exchange
	RequestText  []byte `json:"request_text"`
	ResponseText []byte `json:"response_text"`
}

func (i *Inspector) show(w http.ResponseWriter, r *http.Request) {
	if x := i.asked(w, r); x != nil {
		answer(w, shown{x, x.Request.decoded(), x.Response.decoded()})
	}
}

// decoded gives the body without its content encoding, up to maxBody bytes; and as it
// came when it has none, or one that is not known here.
func (m *Message) decoded() []byte {
	if m == nil || len(m.Body) == 0 {
		return nil
	}
	var r io.Reader
	var err error
	body := strings.NewReader(string(m.Body))
	switch strings.ToLower(strings.TrimSpace(m.Header.Get("Content-Encoding"))) {
	case "gzip", "x-gzip":
		r, err = gzip.NewReader(body)
	case "deflate":
		if r, err = zlib.NewReader(body); err != nil {
			r, err = flate.NewReader(strings.NewReader(string(m.Body))), nil
		}
	default:
		return m.Body
	}
	if err != nil {
		return m.Body
	}
	text, _ := io.ReadAll(io.LimitReader(r, maxBody)) // a body that was cut ends early
	return text
}

// live sends a summary each time that an exchange changes, as server-sent events.
func (i *Inspector) live(w http.ResponseWriter, r *http.Request) {
	changes := make(chan Exchange, 256)
	i.mu.Lock()
	i.watchers[changes] = struct{}{}
	i.mu.Unlock()
	defer func() {
		i.mu.Lock()
		defer i.mu.Unlock()
		delete(i.watchers, changes)
	}()
	w.Header().Set("Content-Type", "text/event-stream")
	flush := http.NewResponseController(w)
	fmt.Fprint(w, ": here\n\n")
	_ = flush.Flush()
	beat := time.NewTicker(15 * time.Second)
	defer beat.Stop()
	for {
		select {
		case x := <-changes:
			line, err := json.Marshal(x)
			if err != nil {
				return
			}
			fmt.Fprintf(w, "data: %s\n\n", line)
		case <-beat.C:
			fmt.Fprint(w, ": here\n\n")
		case <-r.Context().Done():
			return
		}
		if flush.Flush() != nil {
			return
		}
	}
}

// The agent asks for these.
var _ interface {
	Begin(mapping int64) (string, error)
	End(mapping int64)
	Watch(mapping int64, conn transport.Duplex, dial func(context.Context) (net.Conn, error)) transport.Duplex
} = (*Server)(nil)
