package transport

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/pace"
)

// stuckPeer gives a session over TLS to a peer that does not read until it is told to,
// and the peer's end. Its sockets have small buffers.
func stuckPeer(t *testing.T) (*muxSession, net.Conn) {
	t.Helper()
	dir := t.TempDir()
	cert, err := LoadOrCreateIdentity(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	peer := make(chan net.Conn, 1)
	go func() {
		defer close(peer)
		raw, err := ln.Accept()
		if err != nil {
			return
		}
		_ = raw.(*net.TCPConn).SetReadBuffer(8 << 10)
		conn := tls.Server(raw, ListenConfig{Certificate: cert}.ServerTLS())
		if conn.Handshake() == nil {
			peer <- conn
		}
	}()
	session, err := DialTLS(t.Context(), ln.Addr().String(), DialConfig{
		Pins: []Pin{PinOf(cert.Leaf)},
		Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, network, address)
			if err == nil {
				_ = conn.(*net.TCPConn).SetWriteBuffer(8 << 10)
			}
			return conn, err
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = session.Close() })
	conn, ok := <-peer
	if !ok {
		t.Fatal("no handshake")
	}
	t.Cleanup(func() { _ = conn.Close() })
	return session.(*muxSession), conn
}

// A goroutine with a small frame writes it itself, but never waits for the connection:
// bytes that a stuck peer does not read wait in their stream. All of them arrive in the
// end, those of each stream in order.
func TestPromptWritesWaitForNobody(t *testing.T) {
	const streams, writes = 20, 500
	s, peer := stuckPeer(t)
	message := func(stream, i int) []byte { return fmt.Appendf(nil, "stream %02d message %05d.", stream, i) }
	var work sync.WaitGroup
	for n := range streams {
		st, err := s.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		_ = st.SetWriteDeadline(time.Now().Add(pace.Guard)) // the peer reads when everything is written
		work.Go(func() {
			for i := range writes {
				if _, err := st.Write(message(n, i)); err != nil {
					t.Errorf("stream %d: %v", n, err)
					return
				}
			}
			if err := st.CloseWrite(); err != nil {
				t.Error(err)
			}
		})
	}
	work.Wait()
	s.mu.Lock()
	if s.idle() && !s.rest {
		t.Error("the peer's sockets took everything, so that nothing was tried")
	}
	s.mu.Unlock()

	_ = peer.SetReadDeadline(time.Now().Add(pace.Guard))
	r := bufio.NewReader(peer)
	came := map[uint64]*bytes.Buffer{}
	for ended := 0; ended < streams; {
		var raw [headerSize]byte
		if _, err := io.ReadFull(r, raw[:]); err != nil {
			t.Fatal(err)
		}
		h, err := parseHeader(raw[:])
		if err != nil {
			t.Fatal(err)
		}
		if came[h.stream] == nil {
			came[h.stream] = new(bytes.Buffer)
		}
		if _, err := io.CopyN(came[h.stream], r, int64(h.length)); err != nil {
			t.Fatal(err)
		}
		if h.kind == frameData|flagFin || h.kind == frameData|flagFin|flagOpen {
			ended++
		}
	}
	delete(came, 0) // the first ping
	for id, b := range came {
		var n int
		if _, err := fmt.Sscanf(b.String(), "stream %d", &n); err != nil {
			t.Fatalf("stream %d begins with %.30q", id, b)
		}
		for i := range writes {
			if got, want := b.Next(len(message(n, i))), message(n, i); !bytes.Equal(got, want) {
				t.Fatalf("stream %d: %q instead of %q", id, got, want)
			}
		}
	}
}

// Frames that arrive together are sent on together: the reader writes to a session once
// for all the frames that it has for the session.
func TestFramesThatCameTogetherGoOnTogether(t *testing.T) {
	in, from := stuckPeer(t)
	out, to := stuckPeer(t)
	const streams = 50
	go func() {
		for range streams {
			a, err := in.Accept(context.Background())
			if err != nil {
				return
			}
			b, err := out.Open(context.Background())
			if err != nil {
				return
			}
			Join(a, b, Count{}, func(int64, int64, error) {})
		}
	}()
	all := func(flags byte, body string) (frames []byte) {
		for i := range uint64(streams) {
			frames = append(frames, data(flags, 2*i+2, body)...)
		}
		return frames
	}
	_ = to.SetReadDeadline(time.Now().Add(pace.Guard))
	_ = from.SetWriteDeadline(time.Now().Add(pace.Guard))
	buf := make([]byte, 16<<10)
	read := func(body string) (reads int) {
		for bodies := 0; bodies < streams; reads++ {
			n, err := to.Read(buf)
			if err != nil {
				t.Fatal(err)
			}
			bodies += bytes.Count(buf[:n], []byte(body))
		}
		return reads
	}
	_, _ = from.Write(all(flagOpen, "first"))
	read("first")
	_, _ = from.Write(all(0, "second"))
	// TLS gives one record at a time. Otherwise there would be a record for each frame.
	if records := read("second"); records > streams/5 {
		t.Errorf("%d frames went on in %d records", streams, records)
	}
}

// A session whose connection breaks while others write to it ends, and so does its
// writer, whoever notices it first.
func TestBrokenConnectionUnderPromptWrites(t *testing.T) {
	for round := range 40 {
		s, peer := stuckPeer(t)
		var work sync.WaitGroup
		for range 4 {
			st, err := s.Open(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			work.Go(func() {
				for err := error(nil); err == nil; {
					_, err = st.Write([]byte("small"))
				}
			})
		}
		read := make(chan struct{})
		go func() {
			defer close(read)
			_, _ = io.CopyN(io.Discard, peer, int64(1000*round))
			_ = peer.(*tls.Conn).NetConn().(*net.TCPConn).SetLinger(0)
			_ = peer.(*tls.Conn).NetConn().Close()
		}()
		ended := make(chan struct{})
		go func() { defer close(ended); <-s.Done(); _ = s.Close() }()
		select {
		case <-ended:
		case <-time.After(pace.Guard):
			t.Fatal("the session does not end")
		}
		work.Wait()
		<-read
	}
}
