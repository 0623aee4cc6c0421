package main

import (
	"encoding/binary"
	"errors"
	"net"
	"os"
	"slices"
	"time"
)

const (
	datagramSize    = 512
	datagramsAtOnce = 32
	datagramGivenUp = 200 * time.Millisecond // after which a datagram counts as lost
)

// flow is what was measured of one flow of datagrams.
type flow struct {
	rate float64       // that came back, a second
	p50  time.Duration // there and back
	lost int
}

// datagrams sends datagrams to an echo over one flow for d. As soon as one is back the
// next is sent, so that the same number is always on the way.
func datagrams(port int, d time.Duration, meanwhile func()) (f flow, err error) {
	c, err := net.DialUDP("udp4", nil, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
	if err != nil {
		return f, err
	}
	defer func() { _ = c.Close() }()
	out, in := make([]byte, datagramSize), make([]byte, datagramSize+1)
	away := map[uint64]time.Time{} // when what is on the way was sent, by number
	next := uint64(0)
	fill := func() error {
		for len(away) < datagramsAtOnce {
			binary.BigEndian.PutUint64(out, next)
			away[next] = time.Now()
			next++
			if _, err := c.Write(out); err != nil {
				return err
			}
		}
		return nil
	}
	var took []time.Duration
	began := time.Now().Add(d / 5) // until then the flow is made
	until := began.Add(d)
	done := make(chan struct{})
	go func() { defer close(done); meanwhile() }()
	defer func() { <-done }()
	for now := time.Now(); now.Before(until); {
		if err := fill(); err != nil {
			return f, err
		}
		if err := c.SetReadDeadline(now.Add(datagramGivenUp)); err != nil {
			return f, err
		}
		n, err := c.Read(in)
		now = time.Now()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			f.lost += len(away) // nothing has come for that long
			clear(away)
			continue
		}
		if err != nil {
			return f, err
		}
		if n != datagramSize {
			continue // not ours
		}
		number := binary.BigEndian.Uint64(in)
		if at, ok := away[number]; ok {
			delete(away, number)
			if now.After(began) {
				took = append(took, now.Sub(at))
			}
		}
	}
	if len(took) == 0 {
		return f, errors.New("no datagram came back")
	}
	slices.Sort(took)
	f.rate, f.p50 = float64(len(took))/d.Seconds(), took[len(took)/2]
	return f, nil
}
