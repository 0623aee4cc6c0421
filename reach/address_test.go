package reach_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/reach"
	"github.com/tunnox-net/tunnox/test/pace"
)

// names answers look-ups with what it has now.
type names struct {
	answers []netip.Addr
	err     error
	asked   int
}

func (n *names) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) {
	n.asked++
	return n.answers, n.err
}

// at listens at a loopback address until the test ends.
func at(t *testing.T, address string) (port string) {
	t.Helper()
	ln, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, ln.Addr().String())
			_ = c.Close()
		}
	}()
	t.Cleanup(func() { _ = ln.Close(); <-done })
	_, port, err = net.SplitHostPort(ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

func TestEveryAttemptResolvesAgainAndTriesAllAddresses(t *testing.T) {
	port := at(t, "127.0.0.1:0")
	n := &names{}
	d := &reach.Direct{Resolver: n}
	who := func() string {
		t.Helper()
		c, err := d.Dial(pace.Within(t, 10*time.Second), "tcp", net.JoinHostPort("server.test", port))
		if err != nil {
			return err.Error()
		}
		defer c.Close()
		b, err := io.ReadAll(c)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	there, nobody, hole := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.77"), netip.MustParseAddr("240.0.0.1")
	six := netip.MustParseAddr("::1")
	n.err = errors.New("no such host yet")
	if got := who(); got != "no such host yet" {
		t.Error(got)
	}
	n.err = nil
	for _, answers := range [][]netip.Addr{{there}, {nobody, there}, {nobody, nobody, six, there}, {six, nobody, there}, {hole, nobody, there}, {netip.AddrFrom16(there.As16())}} {
		n.answers = answers
		if got := who(); got != net.JoinHostPort("127.0.0.1", port) {
			t.Errorf("%v: %s", answers, got)
		}
	}
	n.answers = []netip.Addr{nobody, six}
	if got := who(); !strings.HasPrefix(got, "none of 2 addresses answers: ") || strings.Contains(got, "\n") {
		t.Error(got)
	}
	n.answers = nil
	if got := who(); got != "server.test has no address" {
		t.Error(got)
	}
	if n.asked != 9 {
		t.Errorf("9 attempts asked %d times", n.asked)
	}
	if c, err := d.Dial(t.Context(), "tcp", net.JoinHostPort("127.0.0.1", port)); err != nil {
		t.Error(err)
	} else {
		_ = c.Close()
	}
	if n.asked != 9 {
		t.Error("an address is no name")
	}
}
