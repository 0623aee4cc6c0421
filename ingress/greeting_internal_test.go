package ingress

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"
)

// spoken is a visitor who has said all they say, and hears what they are told.
type spoken struct {
	net.Conn // nil: what is not below is not used
	say      []byte
	piece    int
	heard    bytes.Buffer
	closed   bool
}

func (s *spoken) Read(b []byte) (int, error) {
	if len(s.say) == 0 {
		return 0, io.EOF
	}
	n := copy(b[:min(len(b), s.piece)], s.say)
	s.say = s.say[n:]
	return n, nil
}
func (s *spoken) Write(b []byte) (int, error)      { return s.heard.Write(b) }
func (s *spoken) Close() error                     { s.closed = true; return nil }
func (s *spoken) RemoteAddr() net.Addr             { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 1} }
func (s *spoken) SetDeadline(time.Time) error      { return nil }
func (s *spoken) SetReadDeadline(time.Time) error  { return nil }
func (s *spoken) SetWriteDeadline(time.Time) error { return nil }

// helloOf gives the first bytes that a client of crypto/tls sends.
func helloOf(t testing.TB, config *tls.Config) []byte {
	t.Helper()
	here, there := net.Pipe()
	defer there.Close()
	go func() { _ = tls.Client(here, config).Handshake(); _ = here.Close() }()
	head := make([]byte, 5)
	if _, err := io.ReadFull(there, head); err != nil {
		t.Fatal(err)
	}
	body := make([]byte, int(head[3])<<8|int(head[4]))
	if _, err := io.ReadFull(there, body); err != nil {
		t.Fatal(err)
	}
	return append(head, body...)
}

// inRecords gives a hello as several records of a size.
func inRecords(hello []byte, size int) (out []byte) {
	for body := hello[5:]; len(body) > 0; {
		n := min(size, len(body))
		out = append(append(out, 22, 3, 1, byte(n>>8), byte(n)), body[:n]...)
		body = body[n:]
	}
	return out
}

const passed = "shop.example.org"

// greeted greets a visitor where one host is passed through and all others are refused,
// and gives what was read when it was.
func greeted(say []byte, piece int) (visitor *spoken, first []byte) {
	visitor = &spoken{say: say, piece: piece}
	s := New(Config{Logger: slog.New(slog.DiscardHandler), Pass: func(_ context.Context, host, _ string) (Passage, error) {
		if host != passed {
			return nil, ErrNoSite
		}
		return func(_ net.Conn, read []byte) error { first = bytes.Clone(read); return nil }, nil
	}})
	l := &secureListener{config: &tls.Config{
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) { return nil, s.route(hello, false) }}}
	if _, pass := l.greet(context.Background(), visitor); pass != nil { // without a goroutine, so that a fuzzer sees the same each time
		pass()
	}
	return visitor, first
}

// A visitor of a host that is passed through is recognised however their hello comes: in
// pieces, in several records, with key shares of post-quantum methods, with more
// behind it. The service gets all that was read, and the visitor hears nothing of ours.
func TestGreetingsOfAllKinds(t *testing.T) {
	plain := helloOf(t, &tls.Config{ServerName: passed, CurvePreferences: []tls.CurveID{tls.X25519}})
	quantum := helloOf(t, &tls.Config{ServerName: passed, CurvePreferences: []tls.CurveID{tls.X25519MLKEM768, tls.X25519}})
	if len(quantum) < 1184 { // the size of an ML-KEM-768 key
		t.Fatalf("the hello has no post-quantum key share: %d bytes", len(quantum))
	}
	for name, say := range map[string][]byte{
		"plain":            plain,
		"post-quantum":     quantum,
		"several records":  inRecords(quantum, 100),
		"records of 1":     inRecords(quantum, 1),
		"capitals":         helloOf(t, &tls.Config{ServerName: "SHOP.example.ORG"}),
		"acme-tls/1":       helloOf(t, &tls.Config{ServerName: passed, NextProtos: []string{"acme-tls/1"}}),
		"TLS 1.0":          helloOf(t, &tls.Config{ServerName: passed, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS10}),
		"more behind it":   append(bytes.Clone(plain), "early data"...),
		"an alert follows": append(bytes.Clone(plain), 21, 3, 1, 0, 2, 1, 0),
	} {
		for _, piece := range []int{1, 7, 1 << 20} {
			visitor, first := greeted(say, piece)
			if first == nil || !bytes.Equal(append(bytes.Clone(first), visitor.say...), say) || visitor.heard.Len() != 0 || visitor.closed {
				t.Errorf("%s, in pieces of %d: %d of %d bytes were read, the visitor heard %x, closed %v", name, piece, len(first), len(say), visitor.heard.Bytes(), visitor.closed)
			}
		}
	}
}

// Whoever goes nowhere is told so in an alert, and the connection ends.
func TestRefusedGreetings(t *testing.T) {
	long := inRecords(append(make([]byte, 5), bytes.Repeat([]byte{1, 0, 0xff, 0xff}, 16<<10)...), 16<<10)
	for name, c := range map[string]struct {
		say   []byte
		alert byte
	}{
		"another host":         {helloOf(t, &tls.Config{ServerName: "other.example.org"}), alertUnrecognizedName},
		"a host below":         {helloOf(t, &tls.Config{ServerName: "a." + passed}), alertUnrecognizedName},
		"no name":              {helloOf(t, &tls.Config{InsecureSkipVerify: true}), alertMissingExtension},
		"an address":           {helloOf(t, &tls.Config{ServerName: "192.0.2.1", InsecureSkipVerify: true}), alertMissingExtension}, // clients send no address
		"a name of odd bytes":  {bytes.Replace(helloOf(t, &tls.Config{ServerName: passed}), []byte(passed), []byte("sh\x00p.ex mple.\xff\xfeg"), 1), alertUnrecognizedName},
		"an address as a name": {bytes.Replace(helloOf(t, &tls.Config{ServerName: "aaaa.aaaaaaa"}), []byte("aaaa.aaaaaaa"), []byte("192.168.10.1"), 1), alertUnrecognizedName},
		"HTTP":                 {[]byte("GET / HTTP/1.1\r\nHost: shop.example.org\r\n\r\n"), 0},
		"another handshake":    {[]byte{22, 3, 1, 0, 4, 2, 0, 0, 0}, 50}, // decode_error, of crypto/tls
		"too long":             {long, 0},
		"nothing":              {nil, 0},
		"cut short":            {helloOf(t, &tls.Config{ServerName: passed})[:60], 0},
	} {
		visitor, first := greeted(c.say, 1<<20)
		heard := visitor.heard.Bytes()
		if first != nil || !visitor.closed {
			t.Errorf("%s: passed %v, closed %v", name, first != nil, visitor.closed)
		}
		if c.alert == 0 && len(heard) == 0 {
			continue
		}
		if len(heard) != 7 || heard[0] != 21 || heard[5] != 2 || c.alert != 0 && heard[6] != c.alert {
			t.Errorf("%s: the visitor hears %x, want the alert %d", name, heard, c.alert)
		}
	}
}

// FuzzGreeting: no hello makes the reader fail, read more than it may, lose a byte, or
// say anything to a visitor who is passed through.
func FuzzGreeting(f *testing.F) {
	hello := helloOf(f, &tls.Config{ServerName: passed})
	for _, say := range [][]byte{hello, inRecords(hello, 50), helloOf(f, &tls.Config{ServerName: "other.example.org"}), []byte("GET / HTTP/1.1\r\n\r\n"), {22, 3, 1, 0xff, 0xff}} {
		f.Add(say, uint16(1))
		f.Add(say, uint16(4096))
	}
	f.Fuzz(func(t *testing.T, say []byte, piece uint16) {
		visitor, first := greeted(bytes.Clone(say), int(piece)+1)
		if read := len(say) - len(visitor.say); read > maxHello {
			t.Errorf("%d bytes were read", read)
		}
		if first == nil {
			if !visitor.closed {
				t.Error("the connection of nobody is open")
			}
			return
		}
		if visitor.heard.Len() != 0 || visitor.closed || !bytes.Equal(append(first, visitor.say...), say) {
			t.Errorf("%d of %d bytes were read, the visitor heard %x, closed %v", len(first), len(say), visitor.heard.Bytes(), visitor.closed)
		}
	})
}
