//go:build !linux

package transport

import "net"

// hungUp is only known on Linux; elsewhere the handshake finds it out.
func hungUp(net.Conn) bool { return false }
