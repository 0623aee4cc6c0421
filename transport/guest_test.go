package transport

import (
	"bytes"
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"testing"
	"time"
)

// calm sets limits of time that do not matter in these tests.
func calm(c *ListenConfig) {
	c.Handshake, c.Authenticate = time.Minute, time.Minute
}

// dialAsGuest gives a stranger that sends frames, and the listener's session with it.
func dialAsGuest(t *testing.T, l *TLSListener) (net.Conn, *muxSession) {
	t.Helper()
	c := tls.Client(dialRaw(t, l), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{protocolName}})
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	s, err := l.Accept(within(t, 30*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return c, s.(*muxSession)
}

// The data of a stranger costs at most the memory of one login. A session whose peer
// sends more ends, whatever it sends.
func TestAStrangerCostsNoMoreThanALogin(t *testing.T) {
	control := data(flagOpen, 1, "")
	for name, frames := range map[string][]byte{
		"a stream":             data(flagOpen, 1, "x"),
		"an empty stream":      control,
		"many streams at once": bytes.Join([][]byte{data(flagOpen, 1, strings.Repeat("x", maxBody)), data(flagOpen, 3, strings.Repeat("x", maxBody))}, nil),
		"many bytes":           bytes.Repeat(data(0, 2, strings.Repeat("x", maxBody)), guestBytes/maxBody+1),
		"many small frames":    bytes.Repeat(data(0, 2, "x"), guestFrames+1),
		"many pings":           bytes.Repeat(appendEcho(nil, framePing, 7), guestFrames+1),
		"many windows":         bytes.Repeat(appendNumber(nil, frameWindow, 2, 1), guestFrames+1),
	} {
		t.Run(name, func(t *testing.T) {
			l, _ := startTLS(t, calm)
			c, s := dialAsGuest(t, l)
			ours, err := s.Open(t.Context()) // the login's stream
			if err != nil {
				t.Fatal(err)
			}
			if _, err := ours.Write([]byte("who are you?")); err != nil {
				t.Fatal(err)
			}
			go func() { _, _ = c.Write(frames) }() // ends with the session
			select {
			case <-s.Done():
			case <-time.After(30 * time.Second):
				t.Fatal("the session goes on")
			}
			if err := s.Err(); !errors.Is(err, errProtocol) || !errors.Is(err, errGuest) {
				t.Errorf("the session ended with %v", err)
			}
			if n := s.NumStreams(); n != 0 {
				t.Errorf("%d streams are left", n)
			}
			noStrangers(t, l)
		})
	}
}

// After Admit a session is not counted any more, and what it sent before is forgotten.
func TestWhoIsAdmittedMaySendMuch(t *testing.T) {
	l, _ := startTLS(t, calm)
	c, s := dialAsGuest(t, l)
	if _, err := c.Write(bytes.Repeat(appendEcho(nil, framePing, 7), guestFrames/2)); err != nil {
		t.Fatal(err)
	}
	s.Admit()
	if _, err := c.Write(bytes.Repeat(appendEcho(nil, framePing, 7), 2*guestFrames)); err != nil {
		t.Fatal(err)
	}
	for id := uint64(1); id < 20; id += 2 {
		if _, err := c.Write(data(flagOpen, id, "hello")); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Accept(within(t, 30*time.Second)); err != nil {
			t.Fatalf("stream %d: %v, %v", id, err, s.Err())
		}
	}
}
