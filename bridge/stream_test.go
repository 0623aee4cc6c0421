package bridge

import (
	"net"
	"testing"

	"golang.org/x/net/nettest"
)

// Both directions of the suite, so that each end is c1 once.
func TestStreamIsAConn(t *testing.T) {
	for name, turn := range map[string]bool{"opener first": false, "taker first": true} {
		t.Run(name, func(t *testing.T) {
			two := startTwo(t, nil)
			nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
				p := two.open(t)
				stop = func() { _ = p.opener.Close(); _ = p.taker.Close() }
				if turn {
					return p.taker, p.opener, stop, nil
				}
				return p.opener, p.taker, stop, nil
			})
		})
	}
}
