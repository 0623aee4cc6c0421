//go:build !linux

package transport

import "net"

// outbox is what the system has of a socket and has not sent, which is not known
// here.
type outbox struct{}

func newOutbox(net.Conn) *outbox { return nil }

func (*outbox) unsent() int { return 0 }
