//go:build !linux

package transport

import "net"

// outbox is the unsent bytes of a socket, which are not known on this system.
type outbox struct{}

func newOutbox(net.Conn) *outbox { return nil }

func (*outbox) unsent() int { return 0 }
