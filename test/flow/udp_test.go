package flow

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/pace"
	"github.com/tunnox-net/tunnox/test/programs"
)

// echoUDP is a service on a port that sends every datagram back, and its port.
func echoUDP(t testing.TB, port int) int {
	t.Helper()
	return programs.EchoUDP(t, net.JoinHostPort("127.0.0.1", strconv.Itoa(port))).LocalAddr().(*net.UDPAddr).Port
}

// passes sends a datagram until it comes back, which the first ones of a flow may not
// before the mapping is everywhere.
func passes(t testing.TB, conn net.Conn, payload []byte) {
	t.Helper()
	programs.Eventually(t, 20*time.Second, func() error { return passOnce(conn, payload, 200*time.Millisecond) })
}

func passOnce(conn net.Conn, payload []byte, within time.Duration) error {
	if _, err := conn.Write(payload); err != nil {
		return err
	}
	_ = conn.SetReadDeadline(time.Now().Add(within))
	buf := make([]byte, 65536)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return err
		}
		if bytes.Equal(buf[:n], payload) {
			return nil
		}
	}
}

func dialUDP(t testing.TB, port int) net.Conn {
	t.Helper()
	conn, err := net.Dial("udp4", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// Datagrams go through agents and servers as they are, from nothing to 65,507 bytes,
// from many ports, with pairs back to back; they count as they pass.
func TestUDP(t *testing.T) {
	t.Parallel()
	inEveryForm(t, func(t *testing.T, serve func(...string) *programs.Server) {
		p := newPair(t, serve())
		service := echoUDP(t, 0)
		local := programs.FreePort(t)
		var m struct {
			ID   int64 `json:"mapping_id"`
			Idle int   `json:"idle_seconds"`
		}
		p.API.Do(t, http.MethodPost, "/api/v1/mappings", map[string]any{"user_id": p.user.ID, "source_client_id": p.source.ID,
			"target_client_id": p.target.ID, "protocol": "udp", "local_port": local, "target_host": "127.0.0.1", "target_port": service}, &m)
		if m.Idle != 60 {
			t.Errorf("idle_seconds is %d where nobody has set it, want 60", m.Idle)
		}
		conn := dialUDP(t, local)
		passes(t, conn, []byte("first"))
		carried := 0
		for _, size := range []int{0, 1, 1472, 16375, 65507} {
			payload := make([]byte, size)
			for i := range payload {
				payload[i] = byte(rand.Uint32())
			}
			if err := passOnce(conn, payload, pace.Guard); err != nil {
				t.Errorf("%d bytes: %v", size, err)
			}
			carried += size
		}
		var all sync.WaitGroup
		for port := range 20 {
			conn := dialUDP(t, local)
			all.Go(func() {
				for i := range 50 {
					pair := [2][]byte{fmt.Appendf(nil, "%d/%d/a", port, i), append(fmt.Appendf(nil, "%d/%d/b", port, i), make([]byte, i*20)...)}
					if _, err := conn.Write(pair[0]); err != nil {
						t.Error(err)
						return
					}
					if err := passOnce(conn, pair[1], pace.Guard); err != nil {
						t.Errorf("port %d, pair %d: %v", port, i, err)
						return
					}
				}
			})
		}
		all.Wait()
		var stats struct {
			Open  int64 `json:"connections_open"`
			Today struct {
				ToTarget int64 `json:"to_target"`
			} `json:"today"`
		}
		programs.Eventually(t, 10*time.Second, func() error {
			p.API.Do(t, http.MethodGet, path("/stats/clients/%d", p.source.ID), nil, &stats)
			if stats.Today.ToTarget < int64(carried) || stats.Open != 21 {
				return fmt.Errorf("%+v, want %d bytes or more and 21 flows", stats, carried)
			}
			return nil
		})
	})
}

// A service that is down for a while ends no flow.
func TestUDPServiceComesBack(t *testing.T) {
	t.Parallel()
	inEveryForm(t, func(t *testing.T, serve func(...string) *programs.Server) {
		p := newPair(t, serve())
		service, local := programs.FreePort(t), programs.FreePort(t)
		p.API.Do(t, http.MethodPost, "/api/v1/mappings", map[string]any{"user_id": p.user.ID, "source_client_id": p.source.ID,
			"target_client_id": p.target.ID, "protocol": "udp", "local_port": local, "target_host": "127.0.0.1", "target_port": service}, nil)
		conn := dialUDP(t, local)
		for range 20 { // nobody is there
			_ = passOnce(conn, []byte("lost"), 5*time.Millisecond)
		}
		echoUDP(t, service)
		watch := time.Now()
		passes(t, conn, []byte("here"))
		t.Logf("answered %v after the service came", time.Since(watch).Round(time.Millisecond))
	})
}
