package transport

import (
	"errors"
	"fmt"
	"sync/atomic"
)

// What a stranger may send to a listener's session until Admit: more than any login
// needs, and so little that the strangers of a full listener together take a few
// dozen megabytes. A stream of a stranger would be read by nobody.
const (
	guestBytes  = 16 << 10
	guestFrames = 1000
)

// errGuest: a stranger sent more than a login needs.
var errGuest = errors.New("it has not been admitted")

// guest counts what the peer of a session sends before it is admitted.
type guest struct {
	admitted atomic.Bool
	// Only the reader looks at these.
	bytes, frames int
}

// received counts a frame. There is no guest where no listener watches over the
// session.
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
