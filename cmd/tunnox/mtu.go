package main

import (
	"fmt"
	"net"
)

// interfaceMTU gives the MTU of the interface that packets to an address leave by.
func interfaceMTU(conn net.Conn) (mtu int, from string, err error) {
	local, ok := conn.LocalAddr().(*net.UDPAddr)
	if !ok {
		return 0, "", fmt.Errorf("no address of this machine")
	}
	all, err := net.Interfaces()
	if err != nil {
		return 0, "", err
	}
	for _, i := range all {
		addresses, err := i.Addrs()
		if err != nil {
			continue
		}
		for _, a := range addresses {
			if n, ok := a.(*net.IPNet); ok && n.IP.Equal(local.IP) {
				return i.MTU, "the interface " + i.Name, nil
			}
		}
	}
	return 0, "", fmt.Errorf("no interface has %s", local.IP)
}
