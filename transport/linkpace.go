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
//
// A link that has sent everything by the next look is never held back: bulk may then add
// as much as the link took lately. So the bytes that wait in this system are at most as
// many as the bytes on their way, and a key stroke waits at most twice as long as it would
// without this system. A fast link costs one look for each 320 KiB.

const (
	paceTime  = 10 * time.Millisecond // how much may be unsent, and how large a frame may be, as time of the link
	paceSpan  = 20 * time.Millisecond // the shortest time over which the link's rate is measured
	paceBlend = 80 * time.Millisecond // a rate that was measured for so long replaces the one before
	paceFirst = 32 << 10              // bytes that may be unsent while the rate is not known
	paceLeast = 4 << 10               // bytes that may be unsent on the slowest link
	paceFrame = 1400                  // bytes of the smallest limit of a frame
	paceFast  = 32 << 20              // bytes a second; on a link as fast as this, bulk does not wait
	paceStep  = 320 << 10             // bytes until the next look on such a link
	paceNap   = 10 * time.Millisecond // the longest wait before the writer looks again
	paceBlink = time.Millisecond      // the shortest
)

// linkPace measures how fast the system sends the bytes of the session. The session's
// lock guards its fields.
type linkPace struct {
	outbox *outbox             // tells how much is unsent; nil if the system does not tell
	queued func(time.Duration) // SessionConfig.Queued

	rate   float64       // bytes per second that the link takes, 0: not known
	rtt    time.Duration // the shortest round trip, 0: not known
	wrote  int64         // bytes that were given to the system, or are about to be
	room   int           // bytes that bulk may still add before the next look
	unsent int           // unsent bytes at the last look
	asleep bool          // bulk waits for the writer's alarm; nobody looks before

	at      time.Time // when the present measurement of the rate began
	sentAt  int64     // bytes that were sent then
	backlog bool      // some bytes were unsent at each look since
}

func newPace(conn net.Conn, queued func(time.Duration)) linkPace {
	return linkPace{outbox: newOutbox(conn), queued: queued, room: paceFirst, at: time.Now()}
}

// shut tells whether bulk has to wait.
func (p *linkPace) shut() bool {
	if p.outbox == nil || p.room > 0 {
		return false
	}
	if !p.asleep {
		p.look(p.outbox.unsent(), time.Now())
	}
	return p.room <= 0
}

// look measures the rate, and decides how much bulk may add.
func (p *linkPace) look(unsent int, now time.Time) {
	p.unsent = unsent
	p.backlog = p.backlog && unsent > 0
	sent := p.wrote - int64(unsent)
	lately, span := sent-p.sentAt, now.Sub(p.at)
	least := max(paceSpan, p.rtt)
	if span >= least || float64(lately) >= paceFast*least.Seconds() {
		p.measured(min(float64(lately)/span.Seconds(), 4*paceFast), span)
		p.at, p.sentAt, p.backlog = now, sent, unsent > 0
	}
	switch {
	case p.rate >= paceFast:
		p.room = paceStep
	case unsent == 0:
		p.room = max(p.allowed(), int(min(lately, paceStep)))
	default:
		p.room = p.allowed() - unsent
	}
	if rate := max(p.rate, float64(lately)/span.Seconds()); p.room <= 0 && p.queued != nil && rate > 0 {
		p.queued(time.Duration(float64(unsent) / rate * float64(time.Second)))
	}
}

// measured takes the rate of the last span. Without a backlog the link may be faster.
func (p *linkPace) measured(rate float64, span time.Duration) {
	switch {
	case !p.backlog:
		p.rate = max(p.rate, rate)
	case p.rate == 0:
		p.rate = rate
	default:
		p.rate += (rate - p.rate) * min(1, float64(span)/float64(paceBlend))
	}
}

// took counts n bytes that go to the system.
func (p *linkPace) took(n int) { p.wrote, p.room = p.wrote+int64(n), p.room-n }

// roundTrip takes a measured round trip.
func (p *linkPace) roundTrip(rtt time.Duration) {
	if p.rtt == 0 || rtt < p.rtt {
		p.rtt = rtt
	}
}

// allowed is how many bytes may be unsent.
func (p *linkPace) allowed() int {
	if p.rate == 0 {
		return paceFirst
	}
	return max(paceLeast, p.worth())
}

// worth is how many bytes the link takes in paceTime.
func (p *linkPace) worth() int { return int(min(p.rate*paceTime.Seconds(), paceStep)) }

// frame is the size of the largest frame.
func (p *linkPace) frame() int {
	switch {
	case p.outbox == nil || p.rate >= paceFast:
		return maxBody
	case p.rate > 0:
		return max(paceFrame, min(p.worth(), maxBody))
	case p.unsent > 0:
		return paceFrame
	}
	return maxBody
}

// nap is how long bulk should wait.
func (p *linkPace) nap() time.Duration {
	if p.rate == 0 {
		return paceBlink
	}
	over := float64(p.unsent - p.allowed()/2)
	return max(paceBlink, min(paceNap, time.Duration(over/p.rate*float64(time.Second))))
}
