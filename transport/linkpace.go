package transport

import (
	"net"
	"time"
)

// Interactive beside bulk. Streams that have little to say go before those that have
// much, as in FQ-CoDel (RFC 8290): a stream that begins to have something is fresh
// and goes first, until it has sent a quantum; then it takes turns with the others.
// That alone helps little where the system's buffer holds seconds of a slow link. So
// the bulk waits while more than a few milliseconds of it are unsent there, and goes
// on in frames that the link takes some milliseconds for.

const (
	paceTime  = 10 * time.Millisecond // how much of the link's time may be unsent, and one frame takes at most
	paceSpan  = 20 * time.Millisecond // for which the link's rate is measured at least
	paceFirst = 32 << 10              // bytes that may be unsent while the rate is not known
	paceLeast = 4 << 10               // and at least, however slow the link
	paceFrame = 1400                  // the smallest that a frame is made
	paceFast  = 32 << 20              // bytes a second, from which on the system may have what it takes
	paceNap   = 20 * time.Millisecond // the longest wait before somebody looks again
)

// linkPace measures how fast the system sends what it is given. Its fields are guarded
// by the session's lock.
type linkPace struct {
	outbox *outbox // tells what is unsent; nil where that is not known

	rate    float64 // bytes per second that the link takes, 0: not known
	wrote   int64   // bytes that were given to the system, or are about to be
	room    int     // bytes that bulk may still add before somebody looks
	unsent  int     // when somebody looked last
	at      time.Time
	sentAt  int64
	backlog bool // there was something unsent all the time since at
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

// look asks the system how much is unsent, and measures.
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
		case p.rate > 0: // it may be faster than what it was given
			p.rate = max(rate, p.rate*1.25)
		}
		p.at, p.sentAt, p.backlog = now, sent, p.unsent > 0
	}
	if p.rate >= paceFast {
		p.room = paceFast / 100 // and then somebody looks again
		return
	}
	p.room = p.allowed() - p.unsent
}

// allowed is how much may be unsent.
func (p *linkPace) allowed() int {
	if p.rate == 0 {
		return paceFirst
	}
	return max(paceLeast, p.worth())
}

// worth is how many bytes the link takes in paceTime.
func (p *linkPace) worth() int { return int(min(p.rate*paceTime.Seconds(), 1<<30)) }

// frame is how large a frame is made at most.
func (p *linkPace) frame() int {
	switch {
	case p.outbox == nil || p.rate == 0 && p.room > 0:
		return maxBody
	case p.rate == 0:
		return paceFrame
	}
	return max(paceFrame, min(p.worth(), maxBody))
}

// took notes what goes to the system.
func (p *linkPace) took(n int) { p.wrote, p.room = p.wrote+int64(n), p.room-n }

// nap is how long bulk should wait.
func (p *linkPace) nap() time.Duration {
	if p.rate == 0 {
		return paceTime / 2
	}
	over := float64(p.unsent - p.allowed()/2)
	return max(time.Millisecond, min(paceNap, time.Duration(over/p.rate*float64(time.Second))))
}

// delay is how long what is unsent will take.
func (p *linkPace) delay() time.Duration {
	if p.rate == 0 {
		return 0
	}
	return time.Duration(float64(p.unsent) / p.rate * float64(time.Second))
}
