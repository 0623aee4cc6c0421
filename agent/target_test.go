package agent

import (
	"context"
	"errors"
	"net"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/tunnox-net/tunnox/test/pace"
	"github.com/tunnox-net/tunnox/transport"
	"github.com/tunnox-net/tunnox/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// What is dialled is what was checked: the name is resolved once, and of its
// addresses only those that the policy allows are tried, by number.
func TestCheckedAddressIsTheOneDialled(t *testing.T) {
	policy, err := ParsePolicy([]string{"10.0.0.0/8:80"})
	if err != nil {
		t.Fatal(err)
	}
	var resolved int
	var dialled []string
	target := newTarget(nil, Config{Policy: policy,
		Resolve: func(_ context.Context, host string) ([]net.IPAddr, error) {
			resolved++
			return []net.IPAddr{{IP: net.ParseIP("169.254.169.254")}, {IP: net.ParseIP("192.0.2.1")},
				{IP: net.ParseIP("10.0.0.1")}, {IP: net.ParseIP("10.0.0.2")}}, nil
		},
		DialService: func(_ context.Context, network, address string) (net.Conn, error) {
			dialled = append(dialled, address)
			return nil, syscall.ECONNREFUSED
		}})
	if _, err := target.reach(t.Context(), "tcp", "tcp", "db.internal:80"); wire.CodeOf(err) != wire.DialRefused {
		t.Errorf("got %v", err)
	}
	if resolved != 1 || strings.Join(dialled, " ") != "10.0.0.1:80 10.0.0.2:80" {
		t.Errorf("resolved %d times, dialled %v", resolved, dialled)
	}
}

func TestReachTellsWhatItMet(t *testing.T) {
	gone := errors.New("no such host")
	for name, tt := range map[string]struct {
		service string
		resolve error
		dial    error
		want    wire.Code
	}{
		"refused":      {"127.0.0.1:1", nil, syscall.ECONNREFUSED, wire.DialRefused},
		"timeout":      {"127.0.0.1:1", nil, context.DeadlineExceeded, wire.DialTimeout},
		"unreachable":  {"127.0.0.1:1", nil, syscall.EHOSTUNREACH, wire.DialUnreachable},
		"no name":      {"nowhere:1", gone, nil, wire.DialUnreachable},
		"not allowed":  {"192.0.2.1:1", nil, nil, wire.PolicyDenied},
		"metadata":     {"169.254.169.254:80", nil, nil, wire.PolicyDenied},
		"no port":      {"127.0.0.1", nil, nil, wire.Malformed},
		"port 0":       {"127.0.0.1:0", nil, nil, wire.Malformed},
		"large port":   {"127.0.0.1:70000", nil, nil, wire.Malformed},
		"no host":      {":80", nil, nil, wire.Malformed},
		"nothing":      {"", nil, nil, wire.Malformed},
		"named port":   {"127.0.0.1:http", nil, nil, wire.Malformed},
		"two brackets": {"[[::1]]:80", nil, nil, wire.Malformed},
	} {
		t.Run(name, func(t *testing.T) {
			target := newTarget(nil, Config{
				Resolve: func(context.Context, string) ([]net.IPAddr, error) { return nil, tt.resolve },
				DialService: func(context.Context, string, string) (net.Conn, error) {
					if tt.dial == nil {
						t.Error("it was dialled")
					}
					return nil, tt.dial
				}})
			if _, err := target.reach(t.Context(), "tcp", "tcp", tt.service); wire.CodeOf(err) != tt.want {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}

// An address that does not answer leaves time for the ones behind it.
func TestEachAddressGetsItsShareOfTheTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		defer client.Close()
		defer server.Close()
		target := newTarget(nil, Config{
			Resolve: func(context.Context, string) ([]net.IPAddr, error) {
				return []net.IPAddr{{IP: net.ParseIP("127.0.0.1")}, {IP: net.ParseIP("127.0.0.2")}}, nil
			},
			DialService: func(ctx context.Context, _, address string) (net.Conn, error) {
				if address == "127.0.0.2:80" {
					return halfCloser{client}, nil
				}
				<-ctx.Done()
				return nil, ctx.Err()
			}})
		began := time.Now()
		if _, err := target.reach(t.Context(), "tcp", "tcp", "two.example:80"); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(began); d != serviceTimeout/2 {
			t.Errorf("the second was dialled after %v, want %v", d, serviceTimeout/2)
		}
	})
}

type halfCloser struct{ net.Conn }

func (halfCloser) CloseWrite() error { return nil }

// A forwarder that is not one: whatever it says, the agent tries again and ends
// when it is told to.
func TestAgentSurvivesAForwarderThatTalksNonsense(t *testing.T) {
	listener := transport.ListenMemory()
	defer listener.Close()
	dials := make(chan struct{}, 100)
	a, err := New(Config{Servers: []string{"x"}, Dial: func(ctx context.Context, _ string) (transport.Session, error) {
		select {
		case dials <- struct{}{}:
		default:
		}
		return listener.Dial(ctx)
	}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	for _, nonsense := range []string{"\xff\xff\xff\xff", "HTTP/1.1 400 Bad Request\r\n\r\n", "\x00\x00\x00\x00", ""} {
		link, err := listener.Accept(ctx)
		if err != nil {
			t.Fatal(err)
		}
		control, err := link.Open(ctx)
		if err != nil {
			t.Fatal(err)
		}
		control.Write([]byte(nonsense))
		control.CloseWrite()
		select {
		case <-link.Done():
		case <-time.After(pace.Guard):
			t.Errorf("after %q the agent stays", nonsense)
			link.Close()
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("ended with %v", err)
	}
	if len(dials) < 4 {
		t.Errorf("dialled %d times", len(dials))
	}
}

func TestNewNamesWhatIsMissing(t *testing.T) {
	credential, _ := wire.NewCredential()
	dial := func(context.Context, string) (transport.Session, error) { return nil, nil }
	for want, cfg := range map[string]Config{
		"no server address":        {Dial: dial},
		"no way to dial":           {Servers: []string{"x"}},
		"needs its auth code":      {Servers: []string{"x"}, Dial: dial, Identity: Identity{ClientID: 1}},
		"an auth code needs its c": {Servers: []string{"x"}, Dial: dial, Identity: Identity{Credential: credential}},
	} {
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

// What an agent that ended says is what its owner can do.
func TestEndedErrorAdvises(t *testing.T) {
	for code, want := range map[wire.Code]string{
		wire.BadCredential:      "auth code",
		wire.UnknownClient:      "right server",
		wire.ClientRevoked:      "rotated",
		wire.ClientDeleted:      "another client",
		wire.RegistrationOff:    "over the API",
		wire.VersionUnsupported: "update",
		wire.Internal:           "ask who runs",
	} {
		if e := (&EndedError{Refusal: wire.Refuse(code)}); !strings.Contains(e.Error(), want) || !errors.Is(e, code) {
			t.Errorf("%s: %v", code, e)
		}
	}
	if e := (&EndedError{Refusal: wire.Refuse(wire.UnknownClient), File: "/x/client.json"}); !strings.Contains(e.Error(), "delete /x/client.json") {
		t.Errorf("got %v", e)
	}
}
