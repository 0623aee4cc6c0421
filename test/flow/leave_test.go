package flow

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"syscall"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/pace"
	"github.com/tunnox-net/tunnox/test/programs"
	"github.com/tunnox-net/tunnox/test/services"
)

// hangingService is a service that no dial reaches: its line of connections is full, so
// that the system drops each SYN. serve makes room in the line, and answers who comes.
func hangingService(t *testing.T) (port int, serve func(answer string) (question string)) {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	bound, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	port = bound.(*syscall.SockaddrInet4).Port
	fillers := map[int]bool{}
	for range 8 { // until a dial hangs
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
		cancel()
		if err != nil {
			break
		}
		t.Cleanup(func() { _ = conn.Close() })
		fillers[conn.LocalAddr().(*net.TCPAddr).Port] = true
	}
	return port, func(answer string) string {
		for {
			conn, from, err := syscall.Accept(fd)
			if err != nil {
				t.Fatal(err)
			}
			if fillers[from.(*syscall.SockaddrInet4).Port] {
				_ = syscall.Close(conn)
				continue
			}
			question := make([]byte, 64)
			n, err := syscall.Read(conn, question)
			if err == nil {
				_, err = syscall.Write(conn, []byte(answer))
			}
			if err != nil {
				t.Fatal(err)
			}
			_ = syscall.Close(conn)
			return string(question[:n])
		}
	}
}

// dialling counts the connections to a port that have no answer yet.
func dialling(t *testing.T, port int) (n int) {
	t.Helper()
	const synSent = 2 // TCP_SYN_SENT in include/net/tcp_states.h
	all, err := programs.Sockets()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		if int(s.Remote.Port()) == port && s.State == synSent {
			n++
		}
	}
	return n
}

// A visitor who leaves while the service is being dialled ends the dial, and frees the
// places everywhere: at once with a reset, and after a short while with a close, which
// looks like the end of a request. Who only ends a request still gets the answer.
func TestVisitorLeavesAHangingDial(t *testing.T) {
	t.Parallel() // it waits more than it works
	_, args := publicPorts(t)
	s := programs.Serve(t, args...)
	here := newPair(t, s)
	c := programs.StartCluster(t, 2, services.Postgres(t), services.Redis(t))
	there := &pair{API: c.Control.API, server: c.Forwarders[0], user: c.Control.API.CreateUser(t, "ann")}
	there.source, there.target = there.CreateClient(t, there.user.ID, "source"), there.CreateClient(t, there.user.ID, "target")
	c.Forwarders[0].Join(t, there.API, there.source, "--sessions", "1")
	c.Forwarders[1].Join(t, there.API, there.target, "--sessions", "1")

	port, serve := hangingService(t)
	var public publicMapping
	s.API.Do(t, http.MethodPost, "/api/v1/mappings", map[string]any{"user_id": here.user.ID, "target_client_id": here.target.ID,
		"protocol": "tcp", "target_host": "127.0.0.1", "target_port": port}, &public)
	for _, way := range []struct {
		name  string
		local int
		at    []*programs.Server
	}{
		{"one forwarder", here.CreateMapping(t, here.wanted(programs.FreePort(t), port)).LocalPort, []*programs.Server{s}},
		{"a bridge", there.CreateMapping(t, there.wanted(programs.FreePort(t), port)).LocalPort, c.Forwarders},
		{"a public port", public.Port, []*programs.Server{s}},
	} {
		t.Run(way.name, func(t *testing.T) {
			for _, leaves := range []struct {
				name  string
				limit time.Duration
				how   func(*net.TCPConn)
			}{
				{"a reset", time.Second, func(c *net.TCPConn) { _ = c.SetLinger(0); _ = c.Close() }},
				{"a request and a close", 7 * time.Second, func(c *net.TCPConn) { _, _ = io.WriteString(c, "GET"); _ = c.Close() }},
			} {
				settledAt(t, way.at, port, 15*time.Second)
				conn := programs.Dial(t, way.local) // the only one: waitOpen would be a visitor who leaves, too
				programs.Eventually(t, 10*time.Second, func() error {
					if n := dialling(t, port); n != 1 {
						return fmt.Errorf("%d dials of the service", n)
					}
					return nil
				})
				watch := pace.Measure(t)
				leaves.how(conn)
				began := time.Now()
				settledAt(t, way.at, port, 15*time.Second)
				if took := time.Since(began); took > watch.Allow(leaves.limit) {
					t.Errorf("%s: the visitor's place is free after %v, want %v", leaves.name, took, leaves.limit)
				}
			}
		})
	}
	if n, err := s.Metric(`tunnox_opens_refused_total{code="visitor_left"}`); err != nil || n < 4 {
		t.Errorf("%v visitors are counted as gone, %v", n, err)
	}

	// The service comes to itself while a visitor waits who has ended the request.
	conn := programs.Dial(t, public.Port)
	if _, err := io.WriteString(conn, "question"); err != nil {
		t.Fatal(err)
	}
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	programs.Eventually(t, 10*time.Second, func() error {
		if dialling(t, port) == 0 {
			return fmt.Errorf("the service is not being dialled")
		}
		return nil
	})
	if got := serve("answer"); got != "question" {
		t.Errorf("the service got %q", got)
	}
	if got, err := io.ReadAll(conn); err != nil || string(got) != "answer" {
		t.Errorf("the visitor got %q, %v", got, err)
	}
}

// settledAt waits until nothing dials the service and no stream lives.
func settledAt(t *testing.T, servers []*programs.Server, port int, limit time.Duration) {
	t.Helper()
	programs.Eventually(t, limit, func() error {
		if n := dialling(t, port); n != 0 {
			return fmt.Errorf("%d dials of the service go on", n)
		}
		for _, s := range servers {
			if n, err := s.Metric("tunnox_streams_active"); err != nil || n != 0 {
				return fmt.Errorf("%v streams at %s are still there, %v", n, s.Name, err)
			}
		}
		return nil
	})
}
