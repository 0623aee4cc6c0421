package flow

import (
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/pace"
	"github.com/tunnox-net/tunnox/test/programs"
	"github.com/tunnox-net/tunnox/test/services"
)

// TestInteractiveOverASlowUplink: beside downloads that fill the target agent's uplink, a
// key stroke and a new connection take about as long as beside the same downloads without
// a tunnel, at one forwarder and over two. What is refused for the load is called so, and
// not the silence of a service.
func TestInteractiveOverASlowUplink(t *testing.T) {
	t.Parallel() // it waits more than it works
	for _, c := range []struct {
		name  string
		rate  float64
		bulks int
	}{
		{"20 downloads", 125_000, 20},
		{"150 downloads", 125_000, 150},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			t.Run("embedded", func(t *testing.T) {
				t.Parallel()
				s := programs.Serve(t)
				overSlowUplink(t, &pair{API: s.API, server: s}, s, c.rate, c.bulks)
			})
			t.Run("cluster", func(t *testing.T) {
				t.Parallel()
				cl := programs.StartCluster(t, 2, services.Postgres(t), services.Redis(t))
				overSlowUplink(t, &pair{API: cl.Control.API, server: cl.Forwarders[0]}, cl.Forwarders[1], c.rate, c.bulks)
			})
		})
	}
}

// kinds is a service that downloads to who sends b, and echoes to others.
func kinds(c *net.TCPConn) {
	kind := make([]byte, 1)
	if _, err := io.ReadFull(c, kind); err != nil {
		return
	}
	if kind[0] == 'b' {
		for b := make([]byte, 32<<10); ; {
			if _, err := c.Write(b); err != nil {
				return
			}
		}
	}
	_, _ = io.Copy(c, c)
}

// stroke gives how long a byte takes there and back.
func stroke(t *testing.T, c net.Conn) time.Duration {
	t.Helper()
	began := time.Now()
	_ = c.SetDeadline(began.Add(pace.Guard))
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Fatalf("after %v: %v", time.Since(began), err)
	}
	return time.Since(began)
}

// besideDownloads gives the medians of a key stroke, and of a new connection with its
// first key stroke, beside downloads. All connections are made by dial, and download
// moves the bytes.
func besideDownloads(t *testing.T, bulks int, dial func() net.Conn, download func(net.Conn)) (key, fresh time.Duration) {
	t.Helper()
	var running sync.WaitGroup
	begin := func(kind string) net.Conn {
		c := dial()
		if _, err := io.WriteString(c, kind); err != nil {
			t.Fatal(err)
		}
		return c
	}
	shell := begin("k")
	stroke(t, shell)
	all := []net.Conn{shell}
	for range bulks {
		c := begin("b")
		all = append(all, c)
		running.Go(func() { download(c) })
	}
	time.Sleep(3 * time.Second) // until the downloads fill what there is to fill
	var keys, news []time.Duration
	for range 3 {
		keys = append(keys, stroke(t, shell))
		began := time.Now()
		c := begin("k")
		stroke(t, c)
		news = append(news, time.Since(began))
		_ = c.Close()
	}
	for _, c := range all {
		_ = c.(*net.TCPConn).SetLinger(0)
		_ = c.Close()
	}
	running.Wait()
	slices.Sort(keys)
	slices.Sort(news)
	return keys[len(keys)/2], news[len(news)/2]
}

// besideDownloadsDirect is besideDownloads without a tunnel: the side of the service has
// the uplink, and each connection is one over it.
func besideDownloadsDirect(t *testing.T, rate float64, bulks int) (key, fresh time.Duration) {
	t.Helper()
	visitors := programs.Listen(t, func(c *net.TCPConn) {
		kind := make([]byte, 1)
		if _, err := io.ReadFull(c, kind); err != nil {
			return
		}
		if kind[0] == 'b' {
			_, _ = io.Copy(io.Discard, c)
			return
		}
		_, _ = io.Copy(c, c)
	})
	link := services.StartSlowProxy(t, visitors.String(), rate)
	return besideDownloads(t, bulks, func() net.Conn {
		c, err := net.Dial("tcp", link.Addr)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}, func(c net.Conn) {
		for b := make([]byte, 32<<10); ; {
			if _, err := c.Write(b); err != nil {
				return
			}
		}
	})
}

func overSlowUplink(t *testing.T, p *pair, at *programs.Server, rate float64, bulks int) {
	p.user = p.CreateUser(t, "ann")
	p.source, p.target = p.CreateClient(t, p.user.ID, "source"), p.CreateClient(t, p.user.ID, "target")
	p.server.Join(t, p.API, p.source)
	link := services.StartSlowProxy(t, at.Agents, rate)
	programs.Start(t, "tunnox", []string{fmt.Sprintf("TUNNOX_CLIENT_ID=%d", p.target.ID), "TUNNOX_AUTH_CODE=" + p.target.AuthCode},
		"agent", "--server", link.Addr, "--pin", at.Pin, "--state", t.TempDir(), "--sessions", "1")
	p.WaitOnline(t, p.target.ID)
	m := p.mapping(t, programs.Listen(t, kinds).Port)
	waitOpen(t, m.LocalPort)
	var slow error
	for range 3 { // a fault is there each time, the work of others is not
		watch := pace.Start()
		directKey, directNew := besideDownloadsDirect(t, rate, bulks)
		key, fresh := besideDownloads(t, bulks, func() net.Conn { return programs.Dial(t, m.LocalPort) },
			func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
		slack := watch.Allow(200 * time.Millisecond)
		watch.Stop()
		t.Logf("key stroke: direct %v, tunnel %v; new connection: direct %v, tunnel %v; slack %v", directKey, key, directNew, fresh, slack)
		if slow = nil; key > 2*directKey+slack || fresh > 2*directNew+slack {
			slow = fmt.Errorf("a key stroke takes %v, direct %v; a new connection %v, direct %v", key, directKey, fresh, directNew)
			continue
		}
		break
	}
	if slow != nil {
		t.Error(slow)
	}
	for _, s := range []*programs.Server{p.server, at} {
		if n, err := s.Metric(`tunnox_opens_refused_total{code="dial_timeout"}`); err == nil && n > 0 {
			t.Errorf("%v connections were refused because the service did not answer, which it did", n)
		}
	}
}
