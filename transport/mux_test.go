package transport

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tunnox-net/tunnox/test/pace"
)

// rawPeer is a peer that writes frames by hand.
type rawPeer struct {
	t    *testing.T
	conn net.Conn
	got  chan header // received frames
	body chan []byte
}

// startRaw gives a session, the server's side, and a raw peer of it.
func startRaw(t *testing.T, config SessionConfig) (*muxSession, *rawPeer) {
	c1, c2 := net.Pipe()
	s := newMux(c1, false, make([]byte, 32), config)
	p := &rawPeer{t: t, conn: c2, got: make(chan header, 4096), body: make(chan []byte, 4096)}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer close(p.got)
		for {
			var raw [headerSize]byte
			if _, err := io.ReadFull(c2, raw[:]); err != nil {
				return
			}
			h, err := parseHeader(raw[:])
			if err != nil {
				t.Errorf("the session sent a bad frame: %v", err)
				return
			}
			body := make([]byte, h.length)
			if _, err := io.ReadFull(c2, body); err != nil {
				return
			}
			p.got <- h
			p.body <- body
		}
	}()
	t.Cleanup(func() {
		_ = s.Close()
		_ = c2.Close()
		<-ended
	})
	return s, p
}

func (p *rawPeer) send(b []byte) {
	_, _ = p.conn.Write(b) // fails when the session has ended; the test sees it
}

// wait gives the next frame of the kind.
func (p *rawPeer) wait(kind byte) (header, []byte) {
	p.t.Helper()
	for {
		select {
		case h, ok := <-p.got:
			if !ok {
				p.t.Fatalf("the connection ended before a frame of kind %#x", kind)
			}
			body := <-p.body
			if h.kind&kindMask == kind {
				return h, body
			}
		case <-time.After(pace.Guard):
			p.t.Fatalf("no frame of kind %#x came", kind)
		}
	}
}

func data(flags byte, stream uint64, body string) []byte {
	return append(appendHeader(nil, header{kind: frameData | flags, length: len(body), stream: stream}), body...)
}

func join(frames ...[]byte) (all []byte) {
	for _, f := range frames {
		all = append(all, f...)
	}
	return all
}

// The bytes that other implementations must write.
func TestFrameBytes(t *testing.T) {
	for want, frame := range map[string][]byte{
		"\x30\x00\x02\x00\x00\x00\x00\x01hi":                               data(flagOpen|flagFin, 1, "hi"),
		"\x60\x00\x00\xff\xff\xff\xff\xff":                                 data(flagFin|flagStop, maxStreamID, ""),
		"\x01\x00\x04\x00\x00\x00\x00\x07\x00\x01\x00\x00":                 appendNumber(nil, frameWindow, 7, 65536),
		"\x02\x00\x04\x00\x00\x00\x01\x00\x00\x00\x00\x01":                 appendNumber(nil, frameReset, 256, resetTooMany),
		"\x03\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x40":                 appendNumber(nil, frameTaken, 0, 64),
		"\x04\x00\x08\x00\x00\x00\x00\x00\x01\x02\x03\x04\x05\x06\x07\x08": appendEcho(nil, framePing, 0x0102030405060708),
		"\x06\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x02":                 appendNumber(nil, frameBye, 0, byeDead),
	} {
		if string(frame) != want {
			t.Errorf("%x, want %x", frame, want)
		}
	}
}

// A peer that breaks the protocol is told so and loses the session, and nothing else
// happens.
func TestProtocolViolations(t *testing.T) {
	open := data(flagOpen, 1, "x")
	many := []byte{}
	for i := range uint64(backlog + 1) {
		many = append(many, data(flagOpen, 2*i+1, "")...)
	}
	tooMuch := open
	for range startWindow/maxBody + 1 {
		tooMuch = join(tooMuch, data(0, 1, strings.Repeat("x", maxBody)))
	}
	for name, frames := range map[string][]byte{
		"garbage":                []byte("GET / HTTP/1.1\r\nHost: example.org\r\n\r\n"),
		"unknown kind":           appendHeader(nil, header{kind: 9}),
		"unknown flag":           appendHeader(nil, header{kind: frameData | 0x80, stream: 1}),
		"flag on a ping":         appendHeader(nil, header{kind: framePing | flagFin, length: 8}),
		"long body":              appendHeader(nil, header{kind: frameData | flagOpen, length: maxBody + 1, stream: 1}),
		"short window":           appendHeader(nil, header{kind: frameWindow, length: 3, stream: 1}),
		"window of no stream":    appendNumber(nil, frameWindow, 0, 1),
		"data of no stream":      data(0, 0, "x"),
		"ping of a stream":       appendHeader(nil, header{kind: framePing, length: 8, stream: 1}),
		"never opened":           data(0, 5, "x"),
		"never opened by us":     data(0, 2, "x"),
		"opened with our id":     data(flagOpen, 2, "x"),
		"opened twice":           join(open, open),
		"opened backwards":       join(data(flagOpen, 3, ""), data(flagOpen, 1, "")),
		"reopened":               join(data(flagOpen|flagFin|flagStop, 1, ""), open),
		"data behind the end":    join(open, data(flagFin, 1, ""), data(0, 1, "x")),
		"two ends":               join(open, data(flagFin, 1, ""), data(flagFin, 1, "")),
		"more than the window":   tooMuch,
		"window over 2 GiB":      join(open, appendNumber(nil, frameWindow, 1, 1<<31-1)),
		"too many opens":         many,
		"more taken than opened": appendNumber(nil, frameTaken, 0, 1),
	} {
		t.Run(name, func(t *testing.T) {
			s, p := startRaw(t, SessionConfig{})
			go p.send(frames)
			if _, body := p.wait(frameBye); binary.BigEndian.Uint32(body) != byeProtocol {
				t.Errorf("bye with code %x", body)
			}
			<-s.Done()
			if !errors.Is(s.Err(), ErrSessionClosed) || !errors.Is(s.Err(), errProtocol) {
				t.Errorf("ended with %v", s.Err())
			}
		})
	}
}

// Frames that cross the end of their stream are allowed.
func TestLateFramesAreIgnored(t *testing.T) {
	s, p := startRaw(t, SessionConfig{})
	p.send(data(flagOpen, 1, "x"))
	st, err := s.Accept(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Reset(); err != nil {
		t.Fatal(err)
	}
	p.wait(frameReset)
	p.send(join(data(0, 1, "late"), data(flagFin, 1, ""), appendNumber(nil, frameWindow, 1, 5), appendNumber(nil, frameReset, 1, 0)))
	p.send(appendEcho(nil, framePing, 42))
	for {
		if _, body := p.wait(framePong); binary.BigEndian.Uint64(body) == 42 {
			break
		}
	}
	if s.Err() != nil {
		t.Fatal(s.Err())
	}
}

func TestMoreStreamsThanAllowedAreReset(t *testing.T) {
	s, p := startRaw(t, SessionConfig{MaxStreams: 2})
	for i := range uint64(5) {
		p.send(data(flagOpen, 2*i+1, "x"))
	}
	for i := range uint64(3) {
		if h, body := p.wait(frameReset); h.stream != 2*i+5 || binary.BigEndian.Uint32(body) != resetTooMany {
			t.Fatalf("reset of %d with %x", h.stream, body)
		}
	}
	if s.NumStreams() != 2 {
		t.Fatalf("%d streams", s.NumStreams())
	}
}

// A peer that sends pings and does not read the answers fills no memory.
func TestPingFlood(t *testing.T) {
	c1, c2 := net.Pipe()
	s := newMux(c1, false, make([]byte, 32), SessionConfig{})
	defer s.Close()
	defer c2.Close()
	flood := []byte{}
	for i := range uint64(1000) {
		flood = appendEcho(flood, framePing, i)
	}
	for range 2 * maxUrgent / len(flood) {
		if _, err := c2.Write(flood); err != nil {
			break
		}
	}
	select {
	case <-s.Done():
	case <-time.After(pace.Guard):
		t.Fatal("the session goes on")
	}
}

// A small frame does not hold a large buffer: memory follows the window.
func TestSmallPiecesShareSegments(t *testing.T) {
	s, p := startRaw(t, SessionConfig{})
	p.send(data(flagOpen, 1, "x"))
	st, err := s.Accept(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	const pieces = 20000
	go func() {
		for range pieces {
			p.send(data(0, 1, "y"))
		}
		p.send(appendEcho(nil, framePing, 7))
	}()
	for {
		if _, body := p.wait(framePong); binary.BigEndian.Uint64(body) == 7 {
			break
		}
	}
	m := st.(*muxStream)
	s.mu.Lock()
	held := 0
	for seg := m.in.head; seg != nil; seg = seg.next {
		held += len(seg.buf)
	}
	s.mu.Unlock()
	if held > 2*(pieces+1)+4<<10 {
		t.Fatalf("%d bytes hold %d", pieces+1, held)
	}
}

// Windows grow for streams that need it, within the session's budget, and the budget is
// released again.
func TestWindowsGrowUnderABudget(t *testing.T) {
	s, p := startRaw(t, SessionConfig{})
	s.mu.Lock()
	s.rtt = time.Hour // everything is fast
	s.extra = windowBudget - 3*startWindow
	s.mu.Unlock()
	p.send(data(flagOpen, 1, ""))
	st, err := s.Accept(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = io.Copy(io.Discard, st) }()
	chunk := strings.Repeat("x", 8<<10)
	granted, sent := startWindow, 0
	for range 100 {
		for granted-sent >= len(chunk) {
			p.send(data(0, 1, chunk))
			sent += len(chunk)
		}
		_, body := p.wait(frameWindow)
		granted += int(binary.BigEndian.Uint32(body))
	}
	m := st.(*muxStream)
	s.mu.Lock()
	window, extra := m.window, s.extra
	s.mu.Unlock()
	if window != 4*startWindow || extra != windowBudget {
		t.Fatalf("the window is %d, %d above the start in all", window, extra)
	}
	_ = st.Reset()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.extra != windowBudget-3*startWindow {
		t.Fatalf("%d are still taken", s.extra)
	}
}

// A session lives for ten times every timeout, idle or not, and its streams with it.
func TestIdleSessionLives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c1, c2 := net.Pipe()
		a := newMux(c1, true, make([]byte, 32), SessionConfig{})
		b := newMux(c2, false, make([]byte, 32), SessionConfig{})
		out, err := a.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		_, _ = out.Write([]byte("x"))
		in, err := b.Accept(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * 15 * time.Second)
		for range 10 {
			time.Sleep(14 * time.Second)
			if _, err := in.Write([]byte("y")); err != nil {
				t.Fatal(err)
			}
		}
		buf := make([]byte, 10)
		if _, err := io.ReadFull(out, buf); err != nil || a.Err() != nil || b.Err() != nil {
			t.Fatal(err, a.Err(), b.Err())
		}
		_ = a.Close()
		_ = b.Close()
	})
}

// A connection that carries nothing any more ends the session within 15 s, for readers
// and writers.
func TestBlackHoleIsNoticed(t *testing.T) {
	for _, every := range []time.Duration{0, 5 * time.Second, 7510 * time.Millisecond, 10 * time.Second, 11990 * time.Millisecond, 20 * time.Second} {
		synctest.Test(t, func(t *testing.T) { blackHole(t, every) })
	}
}

func blackHole(t *testing.T, every time.Duration) {
	c1, c2 := net.Pipe()
	defer c2.Close()
	s := newMux(c1, true, make([]byte, 32), SessionConfig{PingEvery: every})
	buf := make([]byte, 64)
	_, _ = c2.Read(buf) // the first ping; from now on the peer is gone
	start := time.Now()
	st, err := s.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	writes := make(chan error, 1)
	go func() {
		var err error
		for err == nil {
			_, err = st.Write(make([]byte, 1000))
		}
		writes <- err
	}()
	if _, err := st.Read(buf); !errors.Is(err, ErrSessionClosed) {
		t.Errorf("read: %v", err)
	}
	if err := <-writes; !errors.Is(err, ErrSessionClosed) {
		t.Errorf("write: %v", err)
	}
	if took := time.Since(start); took > 15*time.Second {
		t.Errorf("probed every %v it took %v", every, took)
	}
	_ = s.Close()
}

// The suite's frames, and the fuzzer's variations: the session may end, but does not
// panic, leak or wait.
func FuzzFrames(f *testing.F) {
	f.Add(join(data(flagOpen, 1, "x"), data(flagFin, 1, ""), appendNumber(nil, frameWindow, 1, 5)))
	f.Add(join(data(flagOpen|flagFin|flagStop, 1, ""), appendEcho(nil, framePing, 1), appendEcho(nil, framePong, 0)))
	f.Add(join(data(flagOpen, 1, "x"), appendNumber(nil, frameReset, 1, 0), appendNumber(nil, frameTaken, 0, 0)))
	f.Add(appendNumber(nil, frameBye, 0, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		c1, c2 := net.Pipe()
		s := newMux(c1, false, make([]byte, 32), SessionConfig{})
		echoed := make(chan struct{})
		go func() { // the session's user
			defer close(echoed)
			for {
				st, err := s.Accept(context.Background())
				if err != nil {
					return
				}
				_, _ = st.Write([]byte("answer"))
				_ = st.SetReadDeadline(time.Now().Add(time.Millisecond))
				_, _ = io.Copy(io.Discard, st)
				_ = st.Close()
			}
		}()
		read := make(chan struct{})
		go func() { defer close(read); _, _ = io.Copy(io.Discard, c2) }()
		_, _ = c2.Write(b)
		_ = c2.Close()
		<-s.Done()
		_ = s.Close()
		<-echoed
		<-read
		if s.NumStreams() != 0 {
			t.Fatalf("%d streams are left", s.NumStreams())
		}
	})
}

func FuzzParseHeader(f *testing.F) {
	f.Add(appendNumber(nil, frameWindow, 7, 65536)[:headerSize])
	f.Add(data(flagOpen, 1, "")[:headerSize])
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < headerSize {
			return
		}
		h, err := parseHeader(b)
		if err != nil {
			return
		}
		if got := appendHeader(nil, h); string(got) != string(b[:headerSize]) {
			t.Fatalf("%x became %x", b[:headerSize], got)
		}
	})
}
