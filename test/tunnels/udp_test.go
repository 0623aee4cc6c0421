package tunnels

import (
	"fmt"
	"net"
	"strconv"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/programs"
)

// TestUDP: one command gives a service that speaks UDP a public address, and another a
// port of one's own machine.
func TestUDP(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	laptop, desk := w.machine("laptop"), w.reachable("desk")
	service, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 2048)
		for {
			n, from, err := service.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = service.WriteTo(append([]byte("game:"), b[:n]...), from)
		}
	}()
	t.Cleanup(func() { _ = service.Close(); <-done })
	port := strconv.Itoa(service.LocalAddr().(*net.UDPAddr).Port)
	desk.start("agent").Says("connected", limit)
	game := laptop.tunnel("udp", port)
	free, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listen := strconv.Itoa(free.LocalAddr().(*net.UDPAddr).Port)
	_ = free.Close()
	forward := laptop.tunnel("forward", listen, "desk:"+port, "--udp")
	for _, address := range []string{game.ready.Address, forward.ready.Listen} {
		programs.Eventually(t, limit, func() error { return askDatagram(address, "game:hello") })
	}
	forward.end(t)
	game.end(t)
	w.left(0)
}

// askDatagram sends what stands behind the colon and compares the answer.
func askDatagram(address, want string) error {
	conn, err := net.Dial("udp", address)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(2 * time.Second))
	if _, err := conn.Write([]byte("hello")); err != nil {
		return err
	}
	b := make([]byte, 2048)
	n, err := conn.Read(b)
	if err == nil && string(b[:n]) != want {
		err = fmt.Errorf("%s answers %q", address, b[:n])
	}
	return err
}
