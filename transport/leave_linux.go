package transport

import "golang.org/x/sys/unix"

// peerOf asks the system for the state of the connection. An end or a reset is seen even
// if there are unread bytes before it.
func peerOf(fd uintptr) peerState {
	info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
	switch {
	case err != nil:
		return peerHere // not TCP
	case info.State == tcpClose:
		return peerGone
	case info.State == tcpCloseWait:
		return peerEnded
	}
	return peerHere
}
