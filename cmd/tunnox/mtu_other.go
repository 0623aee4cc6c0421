//go:build !linux

package main

import (
	"context"
	"net"
)

// pathMTU gives the MTU of the interface that packets to an address leave by; what is
// behind it is not known. No packet is sent.
func pathMTU(ctx context.Context, target string) (mtu int, from string, err error) {
	conn, err := new(net.Dialer).DialContext(ctx, "udp", target)
	if err != nil {
		return 0, "", err
	}
	defer conn.Close()
	return interfaceMTU(conn)
}
