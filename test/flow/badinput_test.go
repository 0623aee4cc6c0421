package flow

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/programs"
	"github.com/tunnox-net/tunnox/transport"
)

var errOnline = errors.New("the client of a killed agent is still online")

// TestBadRequests: whatever arrives over REST, the answer is clear, nothing is written,
// and the server still works.
func TestBadRequests(t *testing.T) {
	t.Parallel()
	inBothFormsAtOnce(t, func(t *testing.T, serve func(...string) *programs.Server) {
		p := newPair(t, serve())
		other := p.CreateUser(t, "bob")
		m := p.mapping(t, programs.Listen(t, answering("svc")).Port)
		written := len(p.log(t).Records)

		long := strings.Repeat("n", 10<<10)
		user := func(changes ...any) map[string]any {
			return with(map[string]any{"username": "eve", "email": "eve@example.org"}, changes...)
		}
		mapping := func(changes ...any) map[string]any {
			return with(map[string]any{"user_id": p.user.ID, "source_client_id": p.source.ID, "target_client_id": p.target.ID,
				"protocol": "tcp", "local_port": 1, "target_host": "127.0.0.1", "target_port": 80}, changes...)
		}
		users, clients, mappings := path("/users"), path("/clients"), path("/mappings")
		one := path("/mappings/%d", m.ID)
		for _, tt := range []struct {
			what         string
			status       int
			code         string
			method, path string
			body         any
			headers      []string
			places       []string // where the faults are
		}{
			{"malformed JSON", 400, "malformed", "POST", users, []byte(`{"username":`), nil, nil},
			{"no JSON at all", 400, "malformed", "POST", users, []byte("\x00\xff garbage"), nil, nil},
			{"no body", 400, "malformed", "POST", users, []byte{}, nil, nil},
			{"an array", 422, "invalid", "POST", users, []byte(`[]`), nil, nil},
			{"null", 422, "invalid", "POST", users, []byte(`null`), nil, nil},
			{"another media type", 415, "unsupported_media_type", "POST", users, []byte("a: b"), []string{"Content-Type", "application/yaml"}, nil},
			{"2 MB", 413, "body_too_large", "POST", users, bytes.Repeat([]byte(" "), 2<<20), nil, nil},
			{"an unknown field", 422, "invalid", "POST", users, user("admin", true), nil, []string{"body.admin"}},
			{"a field of another type", 422, "invalid", "POST", users, user("username", 7), nil, []string{"body.username"}},
			{"a missing field", 422, "invalid", "POST", users, map[string]any{"username": "eve"}, nil, []string{"body.email"}},
			{"a name of 10 KB", 422, "invalid", "POST", users, user("username", long), nil, []string{"body.username"}},
			{"a client's name of 10 KB", 422, "invalid", "POST", clients, map[string]any{"user_id": p.user.ID, "client_name": long}, nil, []string{"body.client_name"}},
			{"control characters", 422, "invalid", "POST", clients, map[string]any{"user_id": p.user.ID, "client_name": "a\x1b[2Jb"}, nil, []string{"body.client_name"}},
			{"an address without @", 422, "invalid", "POST", users, user("email", "nowhere"), nil, []string{"body.email"}},
			{"a short password", 422, "invalid", "POST", users, user("password", "x"), nil, []string{"body.password"}},
			{"a duplicate name", 409, "username_taken", "POST", users, user("username", "ANN"), nil, []string{"body.username"}},
			{"a duplicate address", 409, "email_taken", "POST", users, user("email", "Ann@Example.org"), nil, []string{"body.email"}},
			{"renaming to a duplicate", 409, "username_taken", "PUT", path("/users/%d", other.ID), map[string]any{"username": "ann"}, nil, nil},
			{"a duplicate listener", 409, "listener_taken", "POST", mappings, mapping("local_port", m.LocalPort), nil, []string{"body.local_port"}},
			{"port 0", 422, "invalid", "POST", mappings, mapping("local_port", 0), nil, []string{"body.local_port"}},
			{"port 70000", 422, "invalid", "POST", mappings, mapping("target_port", 70000), nil, []string{"body.target_port"}},
			{"both ports", 422, "invalid", "POST", mappings, mapping("local_port", -1, "target_port", 65536), nil,
				[]string{"body.local_port", "body.target_port"}},
			{"no host", 422, "invalid", "POST", mappings, mapping("target_host", ""), nil, []string{"body.target_host"}},
			{"a port that is no number", 422, "invalid", "POST", mappings, mapping("local_port", "80"), nil, []string{"body.local_port"}},
			{"a fraction of a port", 422, "invalid", "POST", mappings, mapping("local_port", 80.5), nil, []string{"body.local_port"}},
			{"an unknown protocol", 422, "invalid", "POST", mappings, mapping("protocol", "ftp"), nil, []string{"body.protocol"}},
			{"socks5 with a service", 422, "invalid", "POST", mappings, mapping("protocol", "socks5"), nil, []string{"body.target_host"}},
			{"a host that is none", 422, "invalid", "POST", mappings, mapping("target_host", "a b"), nil, []string{"body.target_host"}},
			{"a listener on a name", 422, "invalid", "POST", mappings, mapping("local_host", "localhost"), nil, []string{"body.local_host"}},
			{"an unknown user", 404, "user_not_found", "POST", mappings, mapping("user_id", 999999999), nil, []string{"body.user_id"}},
			{"an unknown source", 404, "client_not_found", "POST", mappings, mapping("source_client_id", 699999999), nil, []string{"body.source_client_id"}},
			{"an unknown target", 404, "client_not_found", "POST", mappings, mapping("target_client_id", 699999999), nil, []string{"body.target_client_id"}},
			{"a target that is no id", 422, "invalid", "POST", mappings, mapping("target_client_id", -5), nil, []string{"body.target_client_id"}},
			{"somebody else's user", 403, "client_not_owned", "POST", mappings, mapping("user_id", other.ID), nil, []string{"body.source_client_id"}},
			{"changing the owner", 422, "invalid", "PUT", one, map[string]any{"user_id": other.ID}, nil, []string{"body.user_id"}},
			{"a bad port in a change", 422, "invalid", "PUT", one, map[string]any{"target_port": 0}, nil, []string{"body.target_port"}},
			{"the wrong version", 412, "version_conflict", "PUT", one, map[string]any{"target_port": 81}, []string{"If-Match", `"99"`}, nil},
			{"the wrong version of a delete", 412, "version_conflict", "DELETE", one, nil, []string{"If-Match", `"99"`}, nil},
			{"a version that is none", 422, "invalid", "PUT", one, map[string]any{"target_port": 81}, []string{"If-Match", "latest"}, []string{"header.If-Match"}},
			{"a negative limit", 422, "invalid", "PUT", path("/users/%d/quota", p.user.ID), map[string]any{"max_mappings": -1}, nil, []string{"body.max_mappings"}},
			{"an unknown limit", 422, "invalid", "PUT", path("/users/%d/quota", p.user.ID), map[string]any{"max_cats": 1}, nil, []string{"body.max_cats"}},
			{"an unknown id", 404, "user_not_found", "GET", path("/users/%d", 999999999), nil, nil, nil},
			{"an unknown id to delete", 404, "client_not_found", "DELETE", path("/clients/%d", 699999999), nil, nil, nil},
			{"an unknown id to enable", 404, "mapping_not_found", "POST", path("/mappings/%d/enable", 99999), nil, nil, nil},
			{"an unknown history", 404, "mapping_not_found", "GET", path("/mappings/%d/history", 99999), nil, nil, nil},
			{"an id that is no number", 422, "invalid", "GET", path("/users/%s", "x"), nil, nil, []string{"path.id"}},
			{"an id beyond 64 bits", 422, "invalid", "GET", path("/users/%s", "9223372036854775808"), nil, nil, []string{"path.id"}},
			{"a page of 501", 422, "invalid", "GET", path("/users?limit=501"), nil, nil, []string{"query.limit"}},
			{"a page from nowhere", 422, "invalid", "GET", path("/events?after=-1"), nil, nil, []string{"query.after"}},
			{"a position beyond the log", 503, "read_model_behind", "GET", path("/users/%d", p.user.ID), nil, []string{"Min-Position", "999999"}, nil},
			{"no such route", 404, "route_not_found", "GET", "/api/v1/cats", nil, nil, nil},
			{"no such method", 405, "method_not_allowed", "PATCH", users, nil, nil, nil},
			{"the wrong key", 401, "unauthorized", "GET", users, nil, []string{"Authorization", "Bearer " + strings.Repeat("x", 43)}, nil},
			{"no key", 401, "unauthorized", "POST", users, user(), []string{"Authorization", ""}, nil},
			{"another scheme", 401, "unauthorized", "GET", users, nil, []string{"Authorization", "Basic YTpi"}, nil},
			{"a key for idempotency of 1 KB", 422, "invalid", "POST", users, user(), []string{"Idempotency-Key", strings.Repeat("k", 1024)}, []string{"header.Idempotency-Key"}},
		} {
			problem := p.RefusedAs(t, tt.what, tt.status, tt.code, tt.method, tt.path, tt.body, tt.headers...)
			for _, place := range tt.places {
				if !slices.ContainsFunc(problem.Errors, func(f programs.Fault) bool { return f.Location == place && f.Message != "" }) {
					t.Errorf("%s: no fault at %s in %+v", tt.what, place, problem.Errors)
				}
			}
		}
		if now := len(p.log(t).Records); now != written {
			t.Errorf("refused requests wrote %d records", now-written)
		}
		// A key that was used with another request.
		p.Do(t, http.MethodPost, clients, map[string]any{"user_id": p.user.ID, "client_name": "a"}, nil, "Idempotency-Key", "k")
		p.Refused(t, http.StatusUnprocessableEntity, "idempotency_mismatch", http.MethodPost, clients,
			map[string]any{"user_id": p.user.ID, "client_name": "b"}, "Idempotency-Key", "k")
		if err := ask(m.LocalPort, "svc:alive"); err != nil {
			t.Error(err)
		}
	})
}

func with(m map[string]any, changes ...any) map[string]any {
	for pair := range slices.Chunk(changes, 2) {
		m[pair[0].(string)] = pair[1]
	}
	return m
}

// TestGarbageOnTheAgentPort: strangers that send garbage are cut off, and connected
// agents notice nothing. Most strangers are only cut off by a timeout, so all of them
// come at once.
func TestGarbageOnTheAgentPort(t *testing.T) {
	t.Parallel() // it waits more than it works
	inBothFormsAtOnce(t, func(t *testing.T, serve func(...string) *programs.Server) {
		p := newPair(t, serve())
		m := p.mapping(t, programs.Listen(t, answering("svc")).Port)
		live := programs.Dial(t, m.LocalPort)
		expect(t, live, "svc:")
		before, err := p.server.Metric("go_goroutines")
		if err != nil {
			t.Fatal(err)
		}

		random := make([]byte, 64<<10)
		_, _ = rand.NewChaCha8([32]byte{9}).Read(random)
		raw := map[string][]byte{
			"nothing":              {},
			"random bytes":         random,
			"an HTTP request":      []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
			"half a TLS hello":     {0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00},
			"a TLS record too big": append([]byte{0x16, 0x03, 0x01, 0xff, 0xff}, random...),
		}
		var strangers sync.WaitGroup
		for what, b := range raw {
			strangers.Go(func() { p.sendRaw(t, what, b) })
		}
		strangers.Go(func() { p.withoutALPN(t) })
		for what, b := range map[string][]byte{
			"random bytes for a multiplexer": random,
			"zeros for a multiplexer":        make([]byte, 64<<10),
		} {
			strangers.Go(func() { p.sendTLS(t, what, b) })
		}
		frame := func(size uint32, body []byte) []byte {
			return append(binary.BigEndian.AppendUint32(nil, size), body...)
		}
		for what, b := range map[string][]byte{
			"a frame of 4 GiB":         frame(0xffffffff, random),
			"a frame over the limit":   frame(4097, random[:4097]),
			"a frame of garbage":       frame(100, random[:100]),
			"an empty message":         frame(0, nil),
			"a message cut short":      frame(4000, random[:10]),
			"many frames at once":      bytes.Repeat(frame(0, nil), 10_000),
			"a hello of another order": frame(2, []byte{0x3a, 0x00}), // a ping before the hello
		} {
			strangers.Go(func() { p.sendMessage(t, what, b) })
		}
		strangers.Wait()

		if _, err := live.Write([]byte("still")); err != nil {
			t.Error(err)
		}
		expect(t, live, "still")
		waitAnswer(t, m.LocalPort, "svc:alive")
		_ = live.Close()
		programs.Eventually(t, 20*time.Second, func() error {
			n, err := p.server.Metric("go_goroutines")
			if err == nil && n > before+10 {
				err = fmt.Errorf("goroutines grew from %v to %v", before, n)
			}
			return err
		})
		if n, err := p.server.Metric("tunnox_connection_panics_total"); err != nil || n != 0 {
			t.Errorf("%v connections ended by a panic, %v", n, err)
		}
	})
}

// cutOff bounds how long a stranger may stay connected, with room for a busy machine.
const cutOff = 25 * time.Second

func waitCut(t *testing.T, what string, c net.Conn) {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(cutOff)); err != nil {
		t.Errorf("%s: %v", what, err)
		return
	}
	b := make([]byte, 32<<10)
	for {
		if _, err := c.Read(b); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: the server still listens after %v", what, cutOff)
			return
		} else if err != nil {
			return
		}
	}
}

func (p *pair) sendRaw(t *testing.T, what string, b []byte) {
	t.Helper()
	c, err := net.Dial("tcp", p.server.Agents)
	if err != nil {
		t.Errorf("%s: %v", what, err)
		return
	}
	defer func() { _ = c.Close() }()
	_, _ = c.Write(b) // may be cut off in the middle
	waitCut(t, what, c)
}

func (p *pair) dialTLS(t *testing.T, protocols ...string) (*tls.Conn, error) {
	t.Helper()
	return tls.Dial("tcp", p.server.Agents, &tls.Config{InsecureSkipVerify: true, NextProtos: protocols}) // a stranger does not verify
}

func (p *pair) withoutALPN(t *testing.T) {
	t.Helper()
	for _, protocols := range [][]string{nil, {"h2", "http/1.1"}} {
		c, err := p.dialTLS(t, protocols...)
		if err != nil {
			continue // refused in the handshake
		}
		waitCut(t, fmt.Sprint("protocols ", protocols), c)
		_ = c.Close()
	}
}

func (p *pair) sendTLS(t *testing.T, what string, b []byte) {
	t.Helper()
	c, err := p.dialTLS(t, "tunnox/1")
	if err != nil {
		t.Errorf("%s: %v", what, err)
		return
	}
	defer func() { _ = c.Close() }()
	_, _ = c.Write(b)
	waitCut(t, what, c)
}

// sendMessage speaks TLS and the multiplexer as an agent does, then sends bytes in the
// place of messages.
func (p *pair) sendMessage(t *testing.T, what string, b []byte) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	pin, err := transport.ParsePin(p.server.Pin)
	if err != nil {
		t.Errorf("%s: %v", what, err)
		return
	}
	session, err := transport.DialTLS(ctx, p.server.Agents, transport.DialConfig{Pins: []transport.Pin{pin}})
	if err != nil {
		t.Errorf("%s: %v", what, err)
		return
	}
	defer func() { _ = session.Close() }()
	stream, err := session.Open(ctx)
	if err != nil {
		t.Errorf("%s: %v", what, err)
		return
	}
	_, _ = stream.Write(b)
	waitCut(t, what, stream)
	select {
	case <-session.Done():
	case <-time.After(cutOff):
		t.Errorf("%s: the session lives on", what)
	}
}
