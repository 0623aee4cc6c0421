package flow

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/programs"
	"github.com/tunnox-net/tunnox/test/services"
)

// socksDatagrams asks a SOCKS listener for a UDP association, and gives the connection
// that holds it and a socket connected to where its datagrams go.
func socksDatagrams(listener int) (held, relay net.Conn, err error) {
	held, err = net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", listener), 10*time.Second)
	if err != nil {
		return nil, nil, err
	}
	_ = held.SetDeadline(time.Now().Add(20 * time.Second))
	answer := make([]byte, 12)
	if _, err = held.Write([]byte{5, 1, 0, 5, 3, 0, 1, 0, 0, 0, 0, 0, 0}); err == nil {
		_, err = io.ReadFull(held, answer)
	}
	if err == nil && answer[3] != 0 {
		err = fmt.Errorf("the reply is %d", answer[3])
	}
	if err == nil {
		relay, err = net.Dial("udp", fmt.Sprintf("%v:%d", net.IP(answer[6:10]), binary.BigEndian.Uint16(answer[10:])))
	}
	if err != nil {
		_ = held.Close()
		return nil, nil, err
	}
	return held, relay, nil
}

// Datagrams go through a SOCKS association to services by address and by name, in every
// form and over two forwarders, as long as the connection that asked for it is there.
func TestSOCKSAssociation(t *testing.T) {
	t.Parallel()
	scene := func(t *testing.T, p *pair) {
		service, local := echoUDP(t, 0), programs.FreePort(t)
		p.API.Do(t, http.MethodPost, "/api/v1/mappings", map[string]any{"user_id": p.user.ID, "source_client_id": p.source.ID,
			"target_client_id": p.target.ID, "protocol": "socks5", "local_port": local}, nil)
		var held, relay net.Conn
		programs.Eventually(t, 20*time.Second, func() (err error) {
			held, relay, err = socksDatagrams(local)
			return err
		})
		t.Cleanup(func() { held.Close(); relay.Close() })
		ask := func(host []byte, payload string) (string, error) {
			packet := append(binary.BigEndian.AppendUint16(append([]byte{0, 0, 0}, host...), uint16(service)), payload...)
			if _, err := relay.Write(packet); err != nil {
				return "", err
			}
			_ = relay.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
			buf := make([]byte, 65536)
			n, err := relay.Read(buf)
			if err != nil {
				return "", err
			}
			return string(buf[:n]), nil
		}
		address, name := []byte{1, 127, 0, 0, 1}, append([]byte{3, 9}, "localhost"...)
		head := string(binary.BigEndian.AppendUint16([]byte{0, 0, 0, 1, 127, 0, 0, 1}, uint16(service)))
		for i, host := range [][]byte{address, name} {
			payload := fmt.Sprintf("hello %d", i)
			programs.Eventually(t, 20*time.Second, func() error {
				got, err := ask(host, payload)
				if err == nil && got != head+payload {
					err = fmt.Errorf("%q comes back", got)
				}
				return err
			})
		}
		if got, err := ask([]byte{1, 169, 254, 169, 254}, "metadata"); err == nil {
			t.Errorf("of metadata %q comes back", got)
		}
		_ = held.Close()
		programs.Eventually(t, 20*time.Second, func() error {
			if got, err := ask(address, "late"); err == nil {
				return fmt.Errorf("without the connection %q comes back", got)
			}
			return nil
		})
	}
	inEveryForm(t, func(t *testing.T, serve func(...string) *programs.Server) { scene(t, newPair(t, serve())) })
	t.Run("two forwarders", func(t *testing.T) {
		c := programs.StartCluster(t, 2, services.Postgres(t), services.Redis(t))
		api := c.Control.API
		p := &pair{API: api, server: c.Forwarders[0], user: api.CreateUser(t, "ann")}
		p.source, p.target = api.CreateClient(t, p.user.ID, "source"), api.CreateClient(t, p.user.ID, "target")
		p.sourceAgent = c.Forwarders[0].Join(t, api, p.source, "--sessions", "1")
		p.targetAgent = c.Forwarders[1].Join(t, api, p.target, "--sessions", "1")
		scene(t, p)
	})
}
