package hosts

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/tunnox-net/tunnox/test/programs"
)

// Programs that people use, each against each way there is.
func TestPrograms(t *testing.T) {
	t.Parallel()
	everywhere(t, func(t *testing.T, w *world) {
		t.Run("curl", func(t *testing.T) { w.curl(t) })
		t.Run("git", func(t *testing.T) { w.git(t) })
		t.Run("server-sent events", func(t *testing.T) { w.events(t) })
		t.Run("gRPC", func(t *testing.T) { w.grpc(t) })
		t.Run("https and h2c services", func(t *testing.T) { w.schemes(t) })
	})
}

const large = 100 << 20

// pattern is n bytes that repeat at no power of two.
func pattern(n int64) io.Reader {
	piece := make([]byte, 65_521)
	for i := range piece {
		piece[i] = byte(i * 31)
	}
	return io.LimitReader(&repeat{piece: piece}, n)
}

type repeat struct {
	piece []byte
	at    int
}

func (r *repeat) Read(b []byte) (int, error) {
	n := copy(b, r.piece[r.at:])
	r.at = (r.at + n) % len(r.piece)
	return n, nil
}

func hashOf(r io.Reader) string {
	h := sha256.New()
	_, _ = io.Copy(h, r)
	return hex.EncodeToString(h.Sum(nil))
}

// curl moves 100 MB each way, over HTTP/1.1 and over HTTP/2 by prior knowledge.
func (w *world) curl(t *testing.T) {
	want := hashOf(pattern(large))
	m := w.publish(web(t, func(out http.ResponseWriter, in *http.Request) {
		if in.Method == http.MethodPost {
			fmt.Fprint(out, hashOf(in.Body))
			return
		}
		if in.URL.RawQuery == "wait" {
			return
		}
		out.Header().Set("Content-Length", strconv.Itoa(large))
		_, _ = io.Copy(out, pattern(large))
	}), nil)
	file := filepath.Join(t.TempDir(), "large")
	f, err := os.Create(file)
	if err == nil {
		_, err = io.Copy(f, pattern(large))
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	w.answers(m.URL+"?wait", 200, "")
	for _, version := range []string{"--http1.1", "--http2-prior-knowledge"} {
		run := func(args ...string) string {
			t.Helper()
			cmd := exec.CommandContext(t.Context(), "curl", append([]string{"-sS", "--fail", "--noproxy", "*", version, "--connect-to", "::" + w.address}, args...)...)
			var out, said bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &said
			if err := cmd.Run(); err != nil {
				t.Fatalf("curl %s: %v, %s", version, err, said.String())
			}
			return out.String()
		}
		got := filepath.Join(t.TempDir(), "got")
		run("-o", got, m.URL)
		in, err := os.Open(got)
		if err != nil {
			t.Fatal(err)
		}
		if sum := hashOf(in); sum != want {
			t.Errorf("%s: what came down has the hash %s, want %s", version, sum, want)
		}
		_ = in.Close()
		if sum := run("-H", "Expect:", "--data-binary", "@"+file, m.URL); sum != want {
			t.Errorf("%s: what went up has the hash %s, want %s", version, sum, want)
		}
	}
}

// events: each line is there before the next is written.
func (w *world) events(t *testing.T) {
	heard := make(chan struct{})
	for _, kind := range []string{"text/event-stream", "application/octet-stream"} {
		m := w.publish(web(t, func(out http.ResponseWriter, in *http.Request) {
			if in.URL.Path == "/there" {
				return
			}
			out.Header().Set("Content-Type", kind)
			if in.Method == http.MethodPost {
				out.Header().Set("Content-Length", strconv.Itoa(10*len("data: 0\n\n")))
			}
			for i := range 10 {
				fmt.Fprintf(out, "data: %d\n\n", i)
				_ = http.NewResponseController(out).Flush()
				if i == 9 { // with a known length the exchange is over
					return
				}
				select {
				case <-heard:
				case <-in.Context().Done():
					return
				}
			}
		}), nil)
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			w.answers(m.URL+"there", 200, "")
			req, err := http.NewRequestWithContext(t.Context(), method, m.URL, nil)
			if err != nil {
				t.Fatal(err)
			}
			res, err := w.visitors.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewReader(res.Body)
			for i := range 10 {
				line, err := lines.ReadString('\n')
				if want := fmt.Sprintf("data: %d\n", i); line != want || err != nil {
					t.Fatalf("%s %s: line %d is %q, %v", method, kind, i, line, err)
				}
				_, _ = lines.ReadString('\n')
				if i < 9 {
					heard <- struct{}{}
				}
			}
			_ = res.Body.Close()
		}
	}
}

// grpcService answers as its caller asks it to.
type grpcService struct {
	grpc_testing.UnimplementedTestServiceServer
	canceled chan struct{}
}

func (s *grpcService) UnaryCall(ctx context.Context, in *grpc_testing.SimpleRequest) (*grpc_testing.SimpleResponse, error) {
	if want := in.GetResponseStatus(); want != nil {
		return nil, status.Error(codes.Code(want.GetCode()), want.GetMessage())
	}
	_ = grpc.SetTrailer(ctx, metadata.Pairs("x-trailer", "behind"))
	return &grpc_testing.SimpleResponse{Payload: in.GetPayload()}, nil
}

func (s *grpcService) FullDuplexCall(stream grpc_testing.TestService_FullDuplexCallServer) error {
	for {
		in, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			close(s.canceled)
			return err
		}
		if err := stream.Send(&grpc_testing.StreamingOutputCallResponse{Payload: in.GetPayload()}); err != nil {
			return err
		}
	}
}

// grpc: unary calls, trailers, an error without a message, a stream both ways, and a
// caller who goes away in the middle of one.
func (w *world) grpc(t *testing.T) {
	service := &grpcService{canceled: make(chan struct{})}
	server := grpc.NewServer()
	grpc_testing.RegisterTestServiceServer(server, service)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = server.Serve(l) }() // Stop ends it
	t.Cleanup(server.Stop)
	m := w.publish(port(t, l.Addr().String()), map[string]any{"target_scheme": "h2c"})
	conn, err := grpc.NewClient("passthrough:///"+m.Host+"."+baseDomain, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", w.address)
		}))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := grpc_testing.NewTestServiceClient(conn)
	payload := &grpc_testing.Payload{Body: bytes.Repeat([]byte("x"), 1<<20)}
	var trailer metadata.MD
	programs.Eventually(t, limit, func() error {
		out, err := client.UnaryCall(t.Context(), &grpc_testing.SimpleRequest{Payload: payload}, grpc.Trailer(&trailer))
		if err == nil && len(out.GetPayload().GetBody()) != 1<<20 {
			err = fmt.Errorf("%d bytes came back", len(out.GetPayload().GetBody()))
		}
		return err
	})
	if got := strings.Join(trailer.Get("x-trailer"), ","); got != "behind" {
		t.Errorf("the trailer is %q", got)
	}
	_, err = client.UnaryCall(t.Context(), &grpc_testing.SimpleRequest{ResponseStatus: &grpc_testing.EchoStatus{Code: int32(codes.FailedPrecondition), Message: "not today"}})
	if s := status.Convert(err); s.Code() != codes.FailedPrecondition || s.Message() != "not today" {
		t.Errorf("an error is %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := client.FullDuplexCall(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		if err := stream.Send(&grpc_testing.StreamingOutputCallRequest{Payload: &grpc_testing.Payload{Body: []byte{byte(i)}}}); err != nil {
			t.Fatal(err)
		}
		out, err := stream.Recv()
		if err != nil || !bytes.Equal(out.GetPayload().GetBody(), []byte{byte(i)}) {
			t.Fatalf("message %d: %v, %v", i, out, err)
		}
	}
	cancel()
	select {
	case <-service.canceled:
	case <-t.Context().Done():
	}
}

// schemes: services that speak TLS, with HTTP/1.1 and HTTP/2, and HTTP/2 without.
func (w *world) schemes(t *testing.T) {
	answer := http.HandlerFunc(func(out http.ResponseWriter, in *http.Request) {
		body, _ := io.ReadAll(in.Body)
		fmt.Fprintf(out, "%s for %s, tls %v, %d bytes", in.Proto, in.Host, in.TLS != nil, len(body))
	})
	for _, tt := range []struct {
		scheme, want string
		start        func() *httptest.Server
	}{
		{"https", "HTTP/1.1 for %s, tls true, 0 bytes", func() *httptest.Server { return httptest.NewTLSServer(answer) }},
		{"https", "HTTP/2.0 for %s, tls true, 0 bytes", func() *httptest.Server {
			s := httptest.NewUnstartedServer(answer)
			s.EnableHTTP2 = true
			s.StartTLS()
			return s
		}},
		{"h2c", "HTTP/2.0 for %s, tls false, 0 bytes", func() *httptest.Server {
			s := httptest.NewUnstartedServer(answer)
			s.Config.Protocols = new(http.Protocols)
			s.Config.Protocols.SetUnencryptedHTTP2(true)
			s.Start()
			return s
		}},
	} {
		s := tt.start()
		t.Cleanup(s.Close)
		m := w.publish(port(t, s.Listener.Addr().String()), map[string]any{"target_scheme": tt.scheme})
		if m.Scheme != tt.scheme {
			t.Errorf("created %+v", m)
		}
		w.answers(m.URL, 200, fmt.Sprintf(tt.want, strings.Trim(strings.TrimPrefix(m.URL, "http:"), "/")))
		res, err := w.visitors.Post(m.URL, "text/plain", pattern(1<<20))
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if want := fmt.Sprintf("%d bytes", 1<<20); err != nil || !strings.HasSuffix(string(body), want) {
			t.Errorf("%s: a body of a megabyte: %q, %v", tt.scheme, body, err)
		}
	}
}
