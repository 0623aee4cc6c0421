package main

import (
	"context"
	"net"

	"golang.org/x/sys/unix"
)

// pathMTU gives what the kernel knows of the path to an address: the MTU of the route, or
// less if a router on the way has said so. No packet is sent.
func pathMTU(ctx context.Context, target string) (mtu int, from string, err error) {
	conn, err := new(net.Dialer).DialContext(ctx, "udp", target)
	if err != nil {
		return 0, "", err
	}
	defer conn.Close()
	raw, err := conn.(*net.UDPConn).SyscallConn()
	if err != nil {
		return 0, "", err
	}
	level, option := unix.IPPROTO_IP, unix.IP_MTU
	if remote, ok := conn.RemoteAddr().(*net.UDPAddr); ok && remote.IP.To4() == nil {
		level, option = unix.IPPROTO_IPV6, unix.IPV6_MTU
	}
	var fault error
	if err := raw.Control(func(fd uintptr) { mtu, fault = unix.GetsockoptInt(int(fd), level, option) }); err != nil || fault != nil {
		return interfaceMTU(conn)
	}
	return mtu, "the route", nil
}
