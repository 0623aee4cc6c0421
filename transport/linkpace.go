package transport

import (
	"net"
	"time"
)

// Interactive streams beside bulk. Streams with little to send go before streams with
// much, as in FQ-CoDel (RFC 8290). A stream that begins to have something to send is
// fresh and goes first, until it has sent a quantum. Then it is bulk, and takes turns with
// the other streams. This order alone helps little when the system's buffer holds seconds
// of a slow link. So bulk waits while more than a few milliseconds of it are unsent in
// that buffer, and goes on in frames that take the link a few milliseconds.

const (
	paceTime  = 10 * time.Millisecond // how much may be unsent, and how large a frame may be, as time of the link
	paceSpan  = 20 * time.Millisecond // the shortest time over which the link's rate is measured
	paceFirst = 32 << 10              // bytes that may be unsent while the rate is not known
	paceLeast = 4 << 10               // bytes that may be unsent on the slowest link
	paceFrame = 1400                  // bytes of the smallest limit of a frame
	paceFast  = 32 << 20              // bytes a second; on a link as fast as this, bulk does not wait
	paceNap   = 20 * time.Millisecond // the longest wait before the writer looks again
)

// linkPace measures how fast the system sends the bytes of the session. The session's
// lock guards its fields.
type linkPace struct {
	outbox *outbox // tells how much is unsent; nil if the system does not tell

	rate    float64 // bytes per second that the link takes, 0: not known
	wrote   int64   // bytes that were given to the system, or are about to be
	room    int     // bytes that bulk may still add before the next look
	unsent  int     // unsent bytes at the last look
	at      time.Time
	sentAt  int64
	backlog bool // some bytes were unsent all the time since at
}

func newPace(conn net.Conn) linkPace { return linkPace{outbox: newOutbox(conn)} }

// shut tells whether bulk has to wait.
func (p *linkPace) shut() bool {
	if p.outbox == nil || p.room > 0 {
		return false
	}
	p.look()
	return p.room <= 0
}

// look asks the system how much is unsent, and measures the rate.
func (p *linkPace) look() {
	p.unsent = p.outbox.unsent()
	now, sent := time.Now(), p.wrote-int64(p.unsent)
	p.backlog = p.backlog && p.unsent > 0
	if span := now.Sub(p.at); span >= paceSpan {
		rate := float64(sent-p.sentAt) / span.Seconds()
		switch {
		case p.backlog && p.rate == 0:
			p.rate = rate
		case p.backlog:
			p.rate += (rate - p.rate) / 4
		case p.rate > 0: // the link may be faster than the bytes it was given
			p.rate = max(rate, p.rate*1.25)
		}
		p.at, p.sentAt, p.backlog = now, sent, p.unsent > 0
	}
	if p.rate >= paceFast {
		p.room = paceFast / 100 // the bytes until the next look
		return
	}
	p.room = p.allowed() - p.unsent
}

// allowed is how many bytes may be unsent.
func (p *linkPace) allowed() int {
	if p.rate == 0 {
		return paceFirst
	}
	return max(paceLeast, p.worth())
}

// worth is how many bytes the link takes in paceTime.
func (p *linkPace) worth() int { return int(min(p.rate*paceTime.Seconds(), 1<<30)) }

// frame is the size of the largest frame.
func (p *linkPace) frame() int {
	switch {
	case p.outbox == nil || p.rate == 0 && p.room > 0:
		return maxBody
	case p.rate == 0:
		return paceFrame
	}
	return max(paceFrame, min(p.worth(), maxBody))
}

// took counts n bytes that go to the system.
func (p *linkPace) took(n int) { p.wrote, p.room = p.wrote+int64(n), p.room-n }

// nap is how long bulk should wait.
func (p *linkPace) nap() time.Duration {
	if p.rate == 0 {
		return paceTime / 2
	}
	over := float64(p.unsent - p.allowed()/2)
	return max(time.Millisecond, min(paceNap, time.Duration(over/p.rate*float64(time.Second))))
}
