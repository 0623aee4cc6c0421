package transport

import (
	"errors"
	"fmt"
	"sync/atomic"
)

// The limits of what a stranger may send to a listener's session until Admit. They are
// larger than any login needs. They are small enough that all strangers of a full listener
// together use a few dozen megabytes. A stranger may not open a stream, because no
// program would read it.
const (
	guestBytes  = 16 << 10
	guestFrames = 1000
)

// errGuest means that a stranger sent more than a login needs.
var errGuest = errors.New("it has not been admitted")

// guest counts what the peer of a session sends before it is admitted.
type guest struct {
	admitted atomic.Bool
	// Only the reader uses these.
	bytes, frames int
}

// received counts a frame. guest is nil when no listener watches the session.
func (g *guest) received(h header) error {
	if g == nil || g.admitted.Load() {
		return nil
	}
	g.bytes += headerSize + h.length
	g.frames++
	switch {
	case h.kind&kindMask == frameData && h.kind&flagOpen != 0:
		return fmt.Errorf("%w: %w and opens a stream", errProtocol, errGuest)
	case g.frames > guestFrames:
		return fmt.Errorf("%w: %w and has sent %d frames", errProtocol, errGuest, g.frames)
	case g.bytes > guestBytes:
		return fmt.Errorf("%w: %w and has sent %d bytes", errProtocol, errGuest, g.bytes)
	}
	return nil
}
