//go:build !linux

package transport

import "net"

// hungUp works on Linux only; elsewhere the handshake fails.
func hungUp(net.Conn) bool { return false }
