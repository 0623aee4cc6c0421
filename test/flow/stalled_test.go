package flow

import (
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/programs"
	"github.com/tunnox-net/tunnox/test/services"
)

// TestStalledReaders: eight visitors read fast for a while and then not at all. A
// download beside them, over a link of 40 ms, is as fast as it was alone. They kept the
// growth of the windows once, and left the download a seventh of its rate.
func TestStalledReaders(t *testing.T) {
	t.Run("embedded", func(t *testing.T) {
		s := programs.Serve(t)
		besideStalled(t, &pair{API: s.API, server: s}, s)
	})
	t.Run("cluster", func(t *testing.T) {
		c := programs.StartCluster(t, 2, services.Postgres(t), services.Redis(t))
		besideStalled(t, &pair{API: c.Control.API, server: c.Forwarders[0]}, c.Forwarders[1])
	})
}

// besideStalled measures with the source agent at p's server, and the target agent far
// from its own.
func besideStalled(t *testing.T, p *pair, at *programs.Server) {
	p.user = p.CreateUser(t, "ann")
	p.source, p.target = p.CreateClient(t, p.user.ID, "source"), p.CreateClient(t, p.user.ID, "target")
	p.server.Join(t, p.API, p.source)
	link := services.StartProxy(t, at.Agents)
	link.Delay(40)
	programs.Start(t, "tunnox", []string{fmt.Sprintf("TUNNOX_CLIENT_ID=%d", p.target.ID), "TUNNOX_AUTH_CODE=" + p.target.AuthCode},
		"agent", "--server", link.Addr, "--pin", at.Pin, "--state", t.TempDir(), "--sessions", "1")
	p.WaitOnline(t, p.target.ID)
	m := p.mapping(t, programs.Listen(t, func(c *net.TCPConn) {
		b := make([]byte, 64<<10)
		for {
			if _, err := c.Write(b); err != nil {
				return
			}
		}
	}).Port)
	waitOpen(t, m.LocalPort)
	read := func(c net.Conn, n int64) time.Duration {
		t.Helper()
		began := time.Now()
		if _, err := io.CopyN(io.Discard, c, n); err != nil {
			t.Fatal(err)
		}
		return time.Since(began)
	}
	const grown, measured = 16 << 20, 48 << 20
	download := func() time.Duration {
		t.Helper()
		c := programs.Dial(t, m.LocalPort)
		defer func() { _ = c.SetLinger(0); _ = c.Close() }()
		read(c, grown)
		return read(c, measured)
	}
	alone := download()
	for range 8 {
		read(programs.Dial(t, m.LocalPort), grown) // and no more
	}
	for range 3 { // a fault is there each time, the work of others is not
		beside := download()
		ratio := alone.Seconds() / beside.Seconds()
		t.Logf("alone %v, beside eight stalled readers %v: %.2f of the rate", alone, beside, ratio)
		if ratio >= 0.8 {
			return
		}
	}
	t.Error("stalled readers take more than a fifth of the rate")
}
