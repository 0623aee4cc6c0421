package flow

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/pace"
	"github.com/tunnox-net/tunnox/test/programs"
	"github.com/tunnox-net/tunnox/test/services"
)

// publicUDP asks for a public port of datagrams.
func publicUDP(user, target int64, port, service int) map[string]any {
	return map[string]any{"user_id": user, "target_client_id": target, "protocol": "udp", "public_port": port,
		"target_host": "127.0.0.1", "target_port": service}
}

// visits sends datagrams to a public address until one comes back.
func visits(t testing.TB, address string) net.Conn {
	t.Helper()
	conn, err := net.Dial("udp4", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	passes(t, conn, []byte("hello"))
	return conn
}

// A public UDP port is kept through kill -9, beside tcp of the same number, and gone with
// its mapping.
func TestPublicUDP(t *testing.T) {
	inBothForms(t, func(t *testing.T, serve func(...string) *programs.Server) {
		first, args := publicPorts(t)
		s := serve(args...)
		user := s.API.CreateUser(t, "ann")
		target := s.API.CreateClient(t, user.ID, "target")
		s.Join(t, s.API, target)
		s.API.WaitOnline(t, target.ID)
		service := echoUDP(t, 0)

		var m, tcp publicMapping
		s.API.Do(t, http.MethodPost, "/api/v1/mappings?dry_run=true", publicUDP(user.ID, target.ID, first+3, service), nil)
		s.API.Do(t, http.MethodPost, "/api/v1/mappings", publicUDP(user.ID, target.ID, first+3, service), &m)
		if m.Address != fmt.Sprintf("127.0.0.1:%d", first+3) || m.Source != nil {
			t.Errorf("created %+v", m)
		}
		s.API.Do(t, http.MethodPost, "/api/v1/mappings", map[string]any{"user_id": user.ID, "target_client_id": target.ID, "protocol": "tcp",
			"public_port": first + 3, "target_host": "127.0.0.1", "target_port": programs.Listen(t, greeting).Port}, &tcp)
		s.API.Refused(t, http.StatusConflict, "port_taken", http.MethodPost, "/api/v1/mappings", publicUDP(user.ID, target.ID, first+3, service))
		conn := visits(t, m.Address)
		visited(t, tcp.Address) // the same number
		for _, size := range []int{0, 1200, 65507} {
			if err := passOnce(conn, make([]byte, size), pace.Guard); err != nil {
				t.Errorf("%d bytes: %v", size, err)
			}
		}
		s.Kill()
		s.Restart(t)
		visits(t, m.Address)
		for name, least := range map[string]float64{`tunnox_udp_flows`: 1, `tunnox_udp_datagrams_total{outcome="carried"}`: 2} {
			programs.Eventually(t, 10*time.Second, func() error { // a datagram counts when it has been sent
				n, err := s.Metric(name)
				if err == nil && n < least {
					err = fmt.Errorf("%s is %v, want %v or more", name, n, least)
				}
				return err
			})
		}
		s.API.Do(t, http.MethodDelete, path("/mappings/%d", m.ID), nil, nil)
		programs.Eventually(t, 10*time.Second, func() error {
			if conn, err := net.Dial("udp4", m.Address); err == nil {
				defer conn.Close()
				err = passOnce(conn, []byte("gone?"), 50*time.Millisecond)
				if err != nil && strings.Contains(err.Error(), "refused") {
					return nil // the system says that nobody is there
				}
			}
			return errors.New("the port is still open")
		})
	})
}

// In a cluster the visitor's datagrams come in at one forwarder and the agent is at the
// other.
func TestPublicUDPOfACluster(t *testing.T) {
	_, args := publicPorts(t)
	c := programs.StartCluster(t, 2, services.Postgres(t), services.Redis(t))
	a, b := c.Forwarders[0], c.Forwarders[1]
	api := c.Control.API
	user := api.CreateUser(t, "ann")
	target := api.CreateClient(t, user.ID, "target")
	b.Join(t, api, target, "--sessions", "1")
	api.WaitOnline(t, target.ID)
	if err := a.Stop(); err != nil {
		t.Fatal(err)
	}
	a.RestartWith(t, append(a.Args(), args...)...)
	wanted := publicUDP(user.ID, target.ID, 0, echoUDP(t, 0))
	var m publicMapping
	programs.Eventually(t, 10*time.Second, func() error {
		answer, err := api.Call(http.MethodPost, "/api/v1/mappings", wanted)
		if err == nil && answer.Status != http.StatusCreated {
			err = fmt.Errorf("%d %s", answer.Status, answer.Body)
		}
		if err == nil {
			answer.Read(t, &m)
		}
		return err
	})
	conn := visits(t, m.Address)
	for _, size := range []int{0, 1200, 65507} {
		if err := passOnce(conn, make([]byte, size), pace.Guard); err != nil {
			t.Errorf("%d bytes over the bridge: %v", size, err)
		}
	}
	a.Kill()
	a.Restart(t)
	visits(t, m.Address)
	if n, err := b.Metric(`tunnox_bridge_opens_total{direction="in"}`); err != nil || n < 1 {
		t.Errorf("%v flows came over the bridge, %v", n, err)
	}
}

// Flows of visitors count as connections, and end when the traffic of the month is
// used up.
func TestPublicUDPLimits(t *testing.T) {
	inBothForms(t, func(t *testing.T, serve func(...string) *programs.Server) {
		_, args := publicPorts(t)
		s := serve(args...)
		user := s.API.CreateUser(t, "ann")
		target := s.API.CreateClient(t, user.ID, "target")
		s.Join(t, s.API, target)
		s.API.WaitOnline(t, target.ID)
		var m publicMapping
		s.API.Do(t, http.MethodPost, "/api/v1/mappings", publicUDP(user.ID, target.ID, 0, echoUDP(t, 0)), &m)
		conn := visits(t, m.Address)
		s.API.Do(t, http.MethodPut, path("/users/%d/quota", user.ID), map[string]any{"max_connections_per_mapping": 1}, nil)
		programs.Eventually(t, 10*time.Second, func() error {
			second, err := net.Dial("udp4", m.Address)
			if err != nil {
				return err
			}
			defer second.Close()
			if passOnce(second, []byte("second"), 100*time.Millisecond) == nil {
				return errors.New("a second flow passes a limit of one")
			}
			return passOnce(conn, []byte("first"), pace.Guard)
		})
		s.API.Do(t, http.MethodPut, path("/users/%d/quota", user.ID), map[string]any{"max_connections_per_mapping": nil, "monthly_traffic_limit": 200_000}, nil)
		passed := 0
		programs.Eventually(t, 20*time.Second, func() error {
			for range 100 {
				if err := passOnce(conn, make([]byte, 1000), 200*time.Millisecond); err != nil {
					return nil
				}
				passed += 2000
			}
			return fmt.Errorf("%d bytes have passed a limit of 200,000", passed)
		})
		if passed > 400_000 {
			t.Errorf("%d bytes passed a limit of 200,000", passed)
		}
	})
}
