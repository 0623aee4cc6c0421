package transport

import (
	"testing"
	"time"
)

// simLink is a system and its link in virtual time. The system has a congestion window
// that grows by what arrives, as in slow start, and is cut when packets wait too long on
// the way. The system sends from what it was given, and hears of an arrival half a round
// trip later.
type simLink struct {
	rate    func(at time.Duration) float64 // bytes per second
	rtt     time.Duration                  // of an empty link
	window  float64
	given   float64 // bytes in the system that are not sent
	flying  []simFlight
	flies   float64       // bytes in flying
	free    time.Duration // when the link is free
	arrived float64
}

type simFlight struct {
	back  time.Duration
	bytes float64
}

const (
	simStep  = 100 * time.Microsecond
	simQueue = 50 * time.Millisecond // packets that would wait for longer are lost
)

// step lets the system hear and send what it can at this time.
func (l *simLink) step(now time.Duration) {
	for len(l.flying) > 0 && l.flying[0].back <= now {
		n := l.flying[0].bytes
		l.flying, l.flies, l.arrived = l.flying[1:], l.flies-n, l.arrived+n
		l.window = min(l.window+n, max(2*1448, l.rate(now)*(l.rtt+simQueue).Seconds()))
	}
	packet := max(1448, l.rate(now)*simStep.Seconds())
	for l.given > 0 && l.flies < l.window {
		n := min(packet, l.given)
		l.free = max(l.free, now) + time.Duration(n/l.rate(now)*float64(time.Second))
		l.flying, l.flies, l.given = append(l.flying, simFlight{l.free + l.rtt, n}), l.flies+n, l.given-n
	}
}

// simRun is what a run of simulate has seen.
type simRun struct {
	sent  float64       // bytes that arrived
	naps  int           // how often bulk had to wait
	looks int           // how often the system was asked
	delay time.Duration // the longest time that a new byte would have waited in the system
}

// simulate lets bulk write as much as the pace allows, and bulk may write no more than
// offered bytes per second. Delay counts from settled on.
func simulate(l *simLink, length, settled time.Duration, offered float64) (run simRun) {
	start := time.Unix(0, 0)
	p := linkPace{outbox: new(outbox), room: paceFirst, at: start}
	p.roundTrip(l.rtt)
	l.window = 10 * 1448
	var roused time.Duration
	var waiting float64
	for now := time.Duration(0); now < length; now += simStep {
		l.step(now)
		waiting = min(waiting+offered*simStep.Seconds(), 4<<20)
		for waiting > 0 && l.given < 4<<20 {
			if p.asleep && now < roused {
				break
			}
			p.asleep = false
			if p.room <= 0 {
				p.look(int(l.given), start.Add(now))
				run.looks++
			}
			if p.room <= 0 {
				p.asleep, roused = true, now+p.nap()
				run.naps++
				break
			}
			n := min(waiting, float64(p.frame()))
			p.took(int(n))
			l.given += n
			waiting -= n
			l.step(now)
		}
		if now >= settled {
			run.delay = max(run.delay, time.Duration(l.given/l.rate(now)*float64(time.Second)))
		}
	}
	run.sent = l.arrived
	return run
}

func steady(rate float64) func(time.Duration) float64 {
	return func(time.Duration) float64 { return rate }
}

const unbounded = 1e12

// On a fast link bulk waits a few times at most, until the rate is known, and the system
// is seldom asked.
func TestPaceLeavesFastLinksAlone(t *testing.T) {
	for _, c := range []struct {
		name string
		rate float64
		rtt  time.Duration
	}{{"loopback", 600e6, 100 * time.Microsecond}, {"1 Gbit", 125e6, time.Millisecond}} {
		t.Run(c.name, func(t *testing.T) {
			run := simulate(&simLink{rate: steady(c.rate), rtt: c.rtt}, 2*time.Second, 0, unbounded)
			t.Logf("%+v", run)
			if run.naps > 20 {
				t.Errorf("bulk waited %d times", run.naps)
			}
			if most := int(run.sent/paceStep) + 50; run.looks > most {
				t.Errorf("%d looks, at most %d are right", run.looks, most)
			}
			if least := 0.97 * c.rate * 2; run.sent < least {
				t.Errorf("the link took %.0f bytes, %.0f without a pace", run.sent, least)
			}
		})
	}
}

// A link with a long way takes as much as without a pace, from its start on.
func TestPaceCostsNoThroughput(t *testing.T) {
	for _, c := range []struct {
		name string
		rate float64
		rtt  time.Duration
	}{
		{"100 Mbit, 40 ms", 12.5e6, 40 * time.Millisecond},
		{"100 Mbit, 5 ms", 12.5e6, 5 * time.Millisecond},
		{"20 Mbit, 200 ms", 2.5e6, 200 * time.Millisecond},
		{"1 Gbit, 40 ms", 125e6, 40 * time.Millisecond},
		{"1 Mbit, 30 ms", 125e3, 30 * time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			const length = 3 * time.Second
			paced := simulate(&simLink{rate: steady(c.rate), rtt: c.rtt}, length, time.Second, unbounded)
			free := &simLink{rate: steady(c.rate), rtt: c.rtt, window: 10 * 1448, given: 1e12}
			for now := time.Duration(0); now < length; now += simStep {
				free.step(now)
			}
			t.Logf("paced %.0f of %.0f bytes, %+v", paced.sent, free.arrived, paced)
			if paced.sent < 0.95*free.arrived {
				t.Errorf("the link took %.0f bytes, %.0f without a pace", paced.sent, free.arrived)
			}
		})
	}
}

// A byte that comes new to a slow link waits little in this system.
func TestPaceKeepsSlowLinksShort(t *testing.T) {
	for _, c := range []struct {
		name    string
		link    simLink
		offered float64
		settled time.Duration
		most    time.Duration
	}{
		{"1 Mbit", simLink{rate: steady(125e3), rtt: 30 * time.Millisecond}, unbounded, time.Second, 60 * time.Millisecond},
		{"8 Mbit", simLink{rate: steady(1e6), rtt: 10 * time.Millisecond}, unbounded, 500 * time.Millisecond, 40 * time.Millisecond},
		{"100 Mbit", simLink{rate: steady(12.5e6), rtt: 20 * time.Millisecond}, unbounded, time.Second, 30 * time.Millisecond},
		{"1 Mbit, half used", simLink{rate: steady(125e3), rtt: 30 * time.Millisecond}, 60e3, time.Second, 60 * time.Millisecond},
		{"a fast link that becomes slow", simLink{rtt: 10 * time.Millisecond, rate: func(at time.Duration) float64 {
			if at < time.Second {
				return 50e6
			}
			return 1e6
		}}, unbounded, 6 * time.Second, 40 * time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			run := simulate(&c.link, 7*time.Second, c.settled, c.offered)
			t.Logf("%+v", run)
			if run.delay > c.most {
				t.Errorf("a new byte waits up to %v, want %v", run.delay, c.most)
			}
		})
	}
}
