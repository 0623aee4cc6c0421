package transport

import "golang.org/x/sys/unix"

// Bounds of what the system keeps of a lane whose reader is slow. The first is the largest
// window of a stream of a session.
const (
	laneWindow = maxWindow
	laneUnsent = 256 << 10
)

// boundLane sets the bounds for the socket of a lane.
func boundLane(fd uintptr) {
	_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_WINDOW_CLAMP, laneWindow)
	_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, laneUnsent)
}
