package chaos

import (
	"bytes"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/programs"
)

// TestKilledAgentResets: kill -9 of either agent in the middle of a download or an
// upload is a reset at both ends, and never looks like the end of the data.
func TestKilledAgentResets(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	chunk := bytes.Repeat([]byte("0123456789abcdef"), 1<<10)
	endless := func(w io.Writer) error {
		for {
			if _, err := w.Write(chunk); err != nil {
				return err
			}
		}
	}
	for killed, agent := range map[string]int{"source": 0, "target": 1} {
		for _, way := range []string{"download", "upload"} {
			whole := t // the agent that comes instead stays for the next one
			t.Run(killed+" agent killed during "+way, func(t *testing.T) {
				atService := make(chan error, 1)
				service := programs.Listen(t, func(conn *net.TCPConn) {
					if way == "download" {
						atService <- endless(conn)
						return
					}
					_, err := io.Copy(io.Discard, conn)
					atService <- err
				})
				wanted := c.wanted(t)
				wanted.TargetPort = service.Port
				m := c.CreateMapping(t, wanted)
				var conn *net.TCPConn
				programs.Eventually(t, back, func() (err error) {
					conn, err = programs.DialPort(m.LocalPort)
					return err
				})
				defer conn.Close()
				if err := conn.SetDeadline(time.Now().Add(back)); err != nil {
					t.Fatal(err)
				}
				visitor := make(chan error, 1)
				flows := make(chan struct{})
				go func() {
					if way == "upload" {
						close(flows)
						visitor <- endless(conn)
						return
					}
					_, err := io.ReadFull(conn, make([]byte, 1<<20))
					close(flows)
					if err == nil {
						_, err = io.Copy(io.Discard, conn)
					}
					visitor <- err
				}()
				<-flows
				time.Sleep(100 * time.Millisecond) // bytes are under way in every buffer
				c.agents[agent].Kill()
				for end, got := range map[string]chan error{"visitor": visitor, "service": atService} {
					if err := <-got; !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
						t.Errorf("the %s got %v, want a reset", end, err)
					}
				}
				c.agents[agent] = c.forwarder.Join(whole, c.API, []programs.Client{c.source, c.target}[agent])
				c.serves(t, c.mapping)
			})
		}
	}
}
