package inspector

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tunnox-net/tunnox/transport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const mapping = 1001

// desk is an inspector between a client and a service, as in an agent.
type desk struct {
	*Inspector
	t      *testing.T
	client *http.Client
	page   *httptest.Server
}

func newDesk(t *testing.T, service http.HandlerFunc) *desk {
	t.Helper()
	server := httptest.NewServer(service)
	d := &desk{Inspector: New("secret", slog.New(slog.DiscardHandler)), t: t}
	dial := func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", server.Listener.Addr().String())
	}
	way := &http.Transport{DisableCompression: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		conn, err := dial(ctx)
		if err != nil {
			return nil, err
		}
		return d.Watch(mapping, conn.(transport.Duplex), dial), nil
	}}
	d.client = &http.Client{Transport: way}
	d.page = httptest.NewServer(d.Handler())
	t.Cleanup(func() {
		way.CloseIdleConnections()
		d.page.Close()
		server.Close()
	})
	d.Begin(mapping)
	return d
}

func (d *desk) get(method, path, body string) (*http.Response, string) {
	d.t.Helper()
	r, err := http.NewRequest(method, "http://shop.example.org"+path, strings.NewReader(body))
	if err != nil {
		d.t.Fatal(err)
	}
	r.Header.Set("X-Forwarded-For", "198.51.100.7")
	resp, err := d.client.Do(r)
	if err != nil {
		d.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	return resp, string(text)
}

// seen waits for the exchange with a number to be whole.
func (d *desk) seen(id int64) *Exchange {
	d.t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if x := d.Inspector.get(id); x != nil && x.Done > 0 {
			return x
		}
	}
	d.t.Fatalf("request %d was not recorded; there are %+v", id, d.list())
	return nil
}

// ask asks the page's API.
func (d *desk) ask(method, path, token, body string) (status int, answer []byte) {
	d.t.Helper()
	r, err := http.NewRequest(method, d.page.URL+path, strings.NewReader(body))
	if err != nil {
		d.t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := d.page.Client().Do(r)
	if err != nil {
		d.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err = io.ReadAll(resp.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	return resp.StatusCode, answer
}

func TestRequestsAreRecordedAndPassUnchanged(t *testing.T) {
	d := newDesk(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Seen", r.Method)
		w.WriteHeader(http.StatusCreated)
		fmt.Fprintf(w, "%s %s", r.URL.RequestURI(), body)
	})
	for n, method := range []string{"POST", "GET", "PUT"} { // over one connection
		body := strings.Repeat("x", n*100)
		resp, text := d.get(method, "/a?b=c;d", body)
		if resp.StatusCode != http.StatusCreated || text != "/a?b=c;d "+body {
			t.Errorf("the visitor got %d %q", resp.StatusCode, text)
		}
		x := d.seen(int64(n + 1))
		if x.Method != method || x.Target != "/a?b=c;d" || x.Host != "shop.example.org" || x.Visitor != "198.51.100.7" || x.Status != http.StatusCreated ||
			string(x.Request.Body) != body || string(x.Response.Body) != text || x.Response.Header.Get("X-Seen") != method || x.Error != "" {
			t.Errorf("recorded: %+v, %+v, %+v", x, x.Request, x.Response)
		}
		if x.First <= 0 || x.Done < x.First {
			t.Errorf("the times are %v, %v, %v", x.Sent, x.First, x.Done)
		}
	}
}

func TestLargeBodiesPassAndAreCut(t *testing.T) {
	const size = 30 << 20
	d := newDesk(t, func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		w.Header().Set("X-Length", fmt.Sprint(n))
		_, _ = w.Write(make([]byte, size))
	})
	resp, text := d.get("POST", "/", strings.Repeat("u", size))
	if resp.Header.Get("X-Length") != fmt.Sprint(size) || len(text) != size {
		t.Errorf("%s bytes went up, %d came down", resp.Header.Get("X-Length"), len(text))
	}
	x := d.seen(1)
	if x.Error == "" && (x.Request.Length != size || x.Response.Length != size) || len(x.Request.Body) > maxBody || x.Response != nil && len(x.Response.Body) > maxBody {
		t.Errorf("%q, kept %d of %d bytes", x.Error, len(x.Request.Body), x.Request.Length)
	}
}

func TestWhatIsKeptIsBounded(t *testing.T) {
	d := newDesk(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 200<<10)) })
	for n := range maxExchanges + 20 {
		d.get("GET", fmt.Sprint("/", n), "")
	}
	d.seen(maxExchanges + 20)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.size > maxBytes || len(d.kept) > maxExchanges || len(d.kept) < 50 {
		t.Errorf("%d exchanges with %d bytes are kept", len(d.kept), d.size)
	}
}

func TestOtherProtocolsPassUnrecorded(t *testing.T) {
	for name, first := range map[string]string{"TLS": "\x16\x03\x01\x02\x00", "HTTP/2": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = l.Close() }()
			go func() {
				c, err := l.Accept()
				if err == nil {
					_, _ = io.Copy(c, c)
					_ = c.Close()
				}
			}()
			conn, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			i := New("secret", slog.New(slog.DiscardHandler))
			i.Begin(mapping)
			watched := i.Watch(mapping, conn.(transport.Duplex), nil)
			want := first + strings.Repeat("z", 3<<20) // more than may wait to be parsed
			go func() { _, _ = io.WriteString(watched, want); _ = watched.CloseWrite() }()
			got, err := io.ReadAll(watched)
			if string(got) != want || err != nil {
				t.Errorf("%d of %d bytes came back, %v", len(got), len(want), err)
			}
			if err := watched.Close(); err != nil {
				t.Error(err)
			}
			if n := len(i.list()); n != 0 {
				t.Errorf("%d exchanges", n)
			}
		})
	}
}

func TestAnUpgradeIsRecordedAsOne(t *testing.T) {
	d := newDesk(t, func(w http.ResponseWriter, _ *http.Request) {
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer func() { _ = conn.Close() }()
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		line, _ := rw.ReadString('\n')
		_, _ = io.WriteString(conn, "echo "+line)
	})
	r, _ := http.NewRequest("GET", "http://shop.example.org/ws", http.NoBody)
	r.Header.Set("Connection", "Upgrade")
	r.Header.Set("Upgrade", "websocket")
	resp, err := d.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	socket := resp.Body.(io.ReadWriteCloser)
	defer func() { _ = socket.Close() }()
	if _, err := io.WriteString(socket, "hello\n"); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(socket); string(got) != "echo hello\n" {
		t.Errorf("the socket said %q, %v", got, err)
	}
	if x := d.seen(1); !x.Upgrade || x.Status != http.StatusSwitchingProtocols || x.Error != "" {
		t.Errorf("recorded: %+v", x)
	}
}

func TestAnAnswerThatIsCutSaysSo(t *testing.T) {
	d := newDesk(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, "half")
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	resp, err := d.client.Get("http://shop.example.org/")
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err == nil {
		t.Error("the visitor got a whole answer")
	}
	if x := d.seen(1); !strings.Contains(x.Error, "ended before") {
		t.Errorf("recorded: %+v", x)
	}
}

func TestOnlyTheTokenOpensTheRecords(t *testing.T) {
	d := newDesk(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "private") })
	d.get("GET", "/", "")
	d.seen(1)
	for _, path := range []string{"GET /api/exchanges", "GET /api/exchanges/1", "GET /api/live", "DELETE /api/exchanges", "POST /api/exchanges/1/replay"} {
		method, path, _ := strings.Cut(path, " ")
		for _, token := range []string{"", "wrong", "secre", "secret2"} {
			if status, body := d.ask(method, path, token, "{}"); status != http.StatusUnauthorized || bytes.Contains(body, []byte("private")) {
				t.Errorf("%s %s with the token %q: %d %s", method, path, token, status, body)
			}
		}
	}
	if status, body := d.ask("GET", "/", "", ""); status != http.StatusOK || bytes.Contains(body, []byte("secret")) {
		t.Errorf("the page: %d %s", status, body)
	}
	if len(d.list()) != 1 {
		t.Errorf("%d exchanges are left", len(d.list()))
	}
}

func TestReplay(t *testing.T) {
	d := newDesk(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %s %s", r.Method, r.URL.RequestURI(), r.Header.Get("X-Kind"), body)
	})
	d.get("POST", "/hook?a=1", "first")
	d.seen(1)
	for n, c := range []struct{ change, want string }{
		{`{}`, "POST /hook?a=1  first"},
		{`{"method":"PUT","target":"/other","header":{"X-Kind":["changed"]},"body":"second"}`, "PUT /other changed second"},
	} {
		status, answer := d.ask("POST", "/api/exchanges/1/replay", "secret", c.change)
		var made struct{ ID int64 }
		if err := json.Unmarshal(answer, &made); status != http.StatusOK || err != nil || made.ID != int64(n+2) {
			t.Fatalf("replay: %d %s", status, answer)
		}
		if x := d.seen(made.ID); string(x.Response.Body) != c.want || x.ReplayOf != 1 || x.Status != http.StatusOK {
			t.Errorf("the replay was %+v: %q, want %q", x, x.Response.Body, c.want)
		}
	}
	for _, change := range []string{`{"target":"/a b"}`, `{"method":"GET\r\nX: y"}`, `{"target":"http://elsewhere/"}`, `nonsense`} {
		if status, answer := d.ask("POST", "/api/exchanges/1/replay", "secret", change); status != http.StatusUnprocessableEntity {
			t.Errorf("%s: %d %s", change, status, answer)
		}
	}
	// A header cannot begin another request.
	status, answer := d.ask("POST", "/api/exchanges/1/replay", "secret", `{"header":{"X-Kind":["a\r\nHost: b\r\n\r\nGET /smuggled HTTP/1.1"]}}`)
	if status == http.StatusOK {
		var made struct{ ID int64 }
		_ = json.Unmarshal(answer, &made)
		if x := d.seen(made.ID); bytes.Contains(x.Response.Body, []byte("GET /smuggled HTTP/1.1 ")) && x.Target != "/hook?a=1" {
			t.Errorf("a header became a request: %+v", x)
		}
	}
	d.End(mapping)
	if status, answer := d.ask("POST", "/api/exchanges/1/replay", "secret", "{}"); status != http.StatusConflict {
		t.Errorf("after the tunnel: %d %s", status, answer)
	}
}

func TestBodiesAreDecoded(t *testing.T) {
	d := newDesk(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write([]byte("\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff\xcb\x48\xcd\xc9\xc9\x07\x00\x86\xa6\x10\x36\x05\x00\x00\x00"))
	})
	d.get("GET", "/", "")
	d.seen(1)
	_, answer := d.ask("GET", "/api/exchanges/1", "secret", "")
	var x struct {
		ResponseText []byte `json:"response_text"`
	}
	if err := json.Unmarshal(answer, &x); err != nil || string(x.ResponseText) != "hello" {
		t.Errorf("the page shows %q, %v", x.ResponseText, err)
	}
}

// An unwatched mapping costs nothing: the connection stays what it is.
func TestAnUnwatchedConnectionIsLeftAlone(t *testing.T) {
	i := New("secret", slog.New(slog.DiscardHandler))
	conn := &net.TCPConn{}
	if i.Watch(mapping, conn, nil) != transport.Duplex(conn) {
		t.Error("the connection was wrapped")
	}
}

func FuzzRecord(f *testing.F) {
	f.Add([]byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), []byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
	f.Add([]byte("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n"), []byte("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n"))
	f.Fuzz(func(_ *testing.T, asked, said []byte) {
		i := New("secret", slog.New(slog.DiscardHandler))
		requests, answers := newFeed(), newFeed()
		requests.add(asked, time.Now())
		requests.end(io.EOF)
		answers.add(said, time.Now())
		answers.end(io.EOF)
		i.record(mapping, requests, answers)
		for _, x := range i.list() {
			if _, err := json.Marshal(x); err != nil {
				panic(err)
			}
		}
	})
}
