//go:build !linux

package transport

import "net"

// unsentBytes is not known on this system.
func unsentBytes(net.Conn) int { return 0 }
