package transport

import (
	"io"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// idlePeer answers pings until it is told to stop, and counts them.
type idlePeer struct {
	conn  net.Conn
	pings atomic.Int64
	mute  atomic.Bool
}

func (p *idlePeer) run() {
	for {
		raw := make([]byte, headerSize+8)
		if _, err := io.ReadFull(p.conn, raw[:headerSize]); err != nil {
			return
		}
		h, err := parseHeader(raw)
		if err != nil || h.kind != framePing {
			_, _ = io.Copy(io.Discard, p.conn) // a last frame
			return
		}
		if _, err := io.ReadFull(p.conn, raw[headerSize:]); err != nil {
			return
		}
		p.pings.Add(1)
		if !p.mute.Load() {
			raw[0] = framePong
			_, _ = p.conn.Write(raw)
		}
	}
}

// The sessions of a listener are probed together, once in each interval; idle sessions
// do nothing else. A session whose peer falls silent ends in time, and nothing is left
// of ended sessions.
func TestHeartbeatsOfManySessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 300
		config := SessionConfig{beats: newHeartbeats(SessionConfig{}.withDefaults().PingEvery)}
		var sessions []*muxSession
		var peers []*idlePeer
		for range n {
			c1, c2 := net.Pipe()
			p := &idlePeer{conn: c2}
			go p.run()
			sessions, peers = append(sessions, newMux(c1, false, make([]byte, 32), config)), append(peers, p)
			time.Sleep(37 * time.Millisecond)
		}
		synctest.Wait()
		for _, p := range peers {
			p.pings.Store(0)
		}
		const intervals = 20
		time.Sleep(intervals * sessions[0].config.PingEvery)
		for i, p := range peers {
			if got := p.pings.Load(); got < intervals-2 || got > intervals+1 {
				t.Fatalf("session %d was probed %d times in %d intervals", i, got, intervals)
			}
		}
		silent := time.Now()
		for _, p := range peers[:n/3] {
			p.mute.Store(true)
		}
		for i, s := range sessions[:n/3] {
			<-s.Done()
			if took := time.Since(silent); took > s.config.DeadAfter {
				t.Fatalf("session %d ended %v after its peer fell silent", i, took)
			}
		}
		for i, s := range sessions[n/3:] {
			if s.Err() != nil {
				t.Fatalf("session %d ended: %v", n/3+i, s.Err())
			}
		}
		for _, s := range sessions {
			_ = s.Close()
		}
		beats := config.beats
		beats.mu.Lock()
		defer beats.mu.Unlock()
		if beats.count != 0 || beats.next != 0 {
			t.Errorf("%d sessions are still to be seen to, at step %d", beats.count, beats.next)
		}
		for _, p := range peers {
			_ = p.conn.Close()
		}
	})
}

// If both ends use this package, one probe is enough for both.
func TestOneSideProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c1, c2 := net.Pipe()
		client := newMux(c1, true, make([]byte, 32), SessionConfig{})
		server := newMux(c2, false, make([]byte, 32), SessionConfig{})
		time.Sleep(time.Minute)
		for name, s := range map[string]*muxSession{"client": client, "server": server} {
			s.mu.Lock()
			probed := s.lastPing > 0
			s.mu.Unlock()
			if probed != (s == server) {
				t.Errorf("the %s has probed: %v", name, probed)
			}
		}
		_ = client.Close()
		_ = server.Close()
	})
}
