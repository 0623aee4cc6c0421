package agent

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/seal"
	"github.com/tunnox-net/tunnox/test/pace"
	"github.com/tunnox-net/tunnox/transport"
	"github.com/tunnox-net/tunnox/wire"
	"github.com/tunnox-net/tunnox/wire/wirepb"
)

const (
	sourceClient = 600000001
	targetClient = 600000002
)

// namedKeys is a Peers that the test has filled.
type namedKeys struct {
	mu   sync.Mutex
	keys map[int64]seal.PublicKey
}

func (k *namedKeys) set(client int64, key seal.PublicKey) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.keys[client] = key
}

func (k *namedKeys) KeyOf(_ context.Context, _, client int64) (seal.PublicKey, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if key, ok := k.keys[client]; ok {
		return key, nil
	}
	return seal.PublicKey{}, wire.KeyRefused
}

func (k *namedKeys) Trust(ctx context.Context, mapping, client int64, key seal.PublicKey) error {
	if is, err := k.KeyOf(ctx, mapping, client); err != nil || is != key {
		return wire.KeyRefused
	}
	return nil
}

// middle is a forwarder between two real agents that does what the test says.
type middle struct {
	t              *testing.T
	source, target *script
	keys           *namedKeys
	service        *counted
	listen         string

	// change changes what the middle passes on; nil: nothing. One call for each Open,
	// Opened, and record.
	open   func(*wirepb.Open)
	answer func([]byte) []byte
	record func(toTarget bool, n int, record []byte) [][]byte

	mu   sync.Mutex
	wire bytes.Buffer // all that was carried
}

// counted is an echo service that notes how its connections end.
type counted struct {
	address string
	mu      sync.Mutex
	dialled int
	got     bytes.Buffer
	ends    chan error
}

func newCounted(t *testing.T) *counted {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &counted{address: l.Addr().String(), ends: make(chan error, 100)}
	var serving sync.WaitGroup
	t.Cleanup(func() { l.Close(); serving.Wait() })
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			c.mu.Lock()
			c.dialled++
			c.mu.Unlock()
			serving.Go(func() {
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(pace.Guard))
				_, err := io.Copy(io.MultiWriter(conn, c), struct{ io.Reader }{conn})
				if err == nil {
					_ = conn.(*net.TCPConn).CloseWrite()
				}
				c.ends <- err
			})
		}
	})
	return c
}

func (c *counted) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.got.Write(b)
}

func (c *counted) dials() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dialled
}

// keyringOf holds a key that the test has made.
func keyringOf(key seal.Key) *Keyring {
	k := &Keyring{present: key}
	k.party.Store(seal.NewParty(key))
	return k
}

func newMiddle(t *testing.T, change ...func(*Config)) *middle {
	t.Helper()
	m := &middle{t: t, keys: &namedKeys{keys: map[int64]seal.PublicKey{}}, service: newCounted(t)}
	begin := func(client int64) *script {
		key, err := seal.NewKey()
		if err != nil {
			t.Fatal(err)
		}
		m.keys.set(client, key.Public())
		return newScript(t, append([]func(*Config){func(cfg *Config) {
			cfg.Identity.ClientID = client
			cfg.Sealing = &Sealing{Keys: keyringOf(key), Peers: m.keys}
			cfg.Sessions = 1
		}}, change...)...)
	}
	m.source, m.target = begin(sourceClient), begin(targetClient)
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m.listen = free.Addr().String()
	free.Close()
	at := netip.MustParseAddrPort(m.listen)
	m.source.assign(&wirepb.Assign{Version: 1, Full: true, Listeners: []*wirepb.Listener{{MappingId: 7, Protocol: "tcp",
		Host: at.Addr().String(), Port: uint32(at.Port()), Version: 3, TargetClient: targetClient, Options: `{"encryption":"e2e"}`}}})
	return m
}

// next takes the source agent's next stream to the target agent, and gives both with the
// target's answer.
func (m *middle) next() (from, to transport.Stream, code wire.Code) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), pace.Guard)
	defer cancel()
	from, err := m.source.link.Accept(ctx)
	if err != nil {
		m.t.Fatal(err)
	}
	open, err := wire.ReadOpen(from)
	if err != nil {
		m.t.Fatal(err)
	}
	open.Service, open.Protocol, open.SourceClient = m.service.address, "tcp", sourceClient
	if m.open != nil {
		m.open(open)
	}
	to, answer, err := m.ask(open)
	if err != nil {
		_ = wire.WriteOpened(from, err)
		_ = from.CloseWrite()
		return from, nil, wire.CodeOf(err)
	}
	if m.answer != nil {
		answer = m.answer(answer)
	}
	if err := wire.WriteOpenedSealed(from, answer); err != nil {
		m.t.Fatal(err)
	}
	return from, to, ""
}

// ask asks the target agent.
func (m *middle) ask(open *wirepb.Open) (transport.Stream, []byte, error) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), pace.Guard)
	defer cancel()
	to, err := m.target.link.Open(ctx)
	if err != nil {
		m.t.Fatal(err)
	}
	if err := wire.WriteOpen(to, open); err != nil {
		m.t.Fatal(err)
	}
	_ = to.SetReadDeadline(time.Now().Add(pace.Guard))
	answer, err := wire.ReadOpenedSealed(to)
	_ = to.SetReadDeadline(time.Time{})
	return to, answer, err
}

// carry passes records on, both ways, until both have ended.
func (m *middle) carry(from, to transport.Stream) {
	var both sync.WaitGroup
	pass := func(toTarget bool, src, dst transport.Stream) {
		for n := 0; ; n++ {
			record, err := nextRecord(src)
			if errors.Is(err, io.EOF) {
				_ = dst.CloseWrite()
				return
			}
			if err != nil {
				_ = dst.Reset()
				return
			}
			m.mu.Lock()
			m.wire.Write(record)
			m.mu.Unlock()
			out := [][]byte{record}
			if m.record != nil {
				out = m.record(toTarget, n, record)
			}
			for _, b := range out {
				if b == nil { // cut
					_ = dst.CloseWrite()
					return
				}
				if _, err := dst.Write(b); err != nil {
					_ = src.Reset()
					return
				}
			}
		}
	}
	both.Go(func() { pass(true, from, to) })
	both.Go(func() { pass(false, to, from) })
	both.Wait()
}

func nextRecord(r io.Reader) ([]byte, error) {
	header := make([]byte, 5)
	if _, err := io.ReadFull(r, header); err != nil {
		return nil, err
	}
	record := append(header, make([]byte, int(header[3])<<8|int(header[4]))...)
	_, err := io.ReadFull(r, record[5:])
	return record, err
}

// dial connects a program to the source agent.
func (m *middle) dial() *net.TCPConn {
	m.t.Helper()
	conn, err := net.Dial("tcp", m.listen)
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(pace.Guard))
	return conn.(*net.TCPConn)
}

// Between two agents the forwarder carries nothing that it can read, and never the same
// for the same.
func TestWhatAForwarderCarriesIsSealed(t *testing.T) {
	m := newMiddle(t)
	secret := bytes.Repeat([]byte("attack at dawn! "), 4096)
	blocks := map[string]bool{}
	for range 2 {
		m.wire.Reset()
		conn := m.dial()
		from, to, code := m.next()
		if code != "" {
			t.Fatal(code)
		}
		var carrying sync.WaitGroup
		carrying.Go(func() { m.carry(from, to) })
		go func() {
			_, _ = conn.Write(secret)
			_ = conn.CloseWrite()
		}()
		got, err := io.ReadAll(conn)
		if err != nil || !bytes.Equal(got, secret) {
			t.Fatalf("%d bytes came back, %v", len(got), err)
		}
		carrying.Wait()
		if err := <-m.service.ends; err != nil {
			t.Errorf("the service's connection ended with %v", err)
		}
		seen := m.wire.Bytes()
		if len(seen) < 2*len(secret) || bytes.Contains(seen, secret[:8]) {
			t.Errorf("the forwarder carried %d bytes, or plaintext", len(seen))
		}
		for at := 0; at+16 <= len(seen); at += 16 {
			if b := string(seen[at : at+16]); blocks[b] {
				t.Fatal("the forwarder carried the same 16 bytes twice")
			} else {
				blocks[b] = true
			}
		}
	}
}

// A forwarder that does anything to the records ends the connection with an error at
// both ends: the program and the service get no wrong byte, and no end as of whole data.
func TestAForwarderThatChangesRecordsIsFoundOut(t *testing.T) {
	text := make([]byte, 100<<10)
	_, _ = rand.Read(text)
	faults := map[string]func(n int, record []byte) [][]byte{
		"flips": func(n int, r []byte) [][]byte {
			if n == 2 {
				r[len(r)/2] ^= 4
			}
			return [][]byte{r}
		},
		"drops": func(n int, r []byte) [][]byte {
			if n == 1 {
				return nil
			}
			return [][]byte{r}
		},
		"repeats": func(n int, r []byte) [][]byte {
			if n == 1 {
				return [][]byte{r, r}
			}
			return [][]byte{r}
		},
		"cuts between records": func(n int, r []byte) [][]byte {
			if n == 2 {
				return [][]byte{nil}
			}
			return [][]byte{r}
		},
		"cuts a record": func(n int, r []byte) [][]byte {
			if n == 2 {
				return [][]byte{r[:len(r)/2], nil}
			}
			return [][]byte{r}
		},
	}
	var kept []byte
	faults["reorders"] = func(n int, r []byte) [][]byte {
		switch n {
		case 1:
			kept = bytes.Clone(r)
			return nil
		case 2:
			return [][]byte{r, kept}
		}
		return [][]byte{r}
	}
	for name, fault := range faults {
		for _, toTarget := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/to target=%v", name, toTarget), func(t *testing.T) {
				m := newMiddle(t)
				m.record = func(way bool, n int, record []byte) [][]byte {
					if way != toTarget {
						return [][]byte{record}
					}
					return fault(n, record)
				}
				conn := m.dial()
				from, to, code := m.next()
				if code != "" {
					t.Fatal(code)
				}
				go m.carry(from, to)
				wrote := make(chan error, 1)
				go func() { // in pieces, so that there are several records; no end
					for at := 0; at < len(text); at += 10 << 10 {
						if _, err := conn.Write(text[at : at+10<<10]); err != nil {
							wrote <- err
							return
						}
						time.Sleep(time.Millisecond)
					}
					wrote <- nil
				}()
				got, err := io.ReadAll(conn)
				if err == nil { // the system reports a reset once: the write may have got it
					err = <-wrote
				}
				if !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("the program's connection ended with %v", err)
				}
				if !bytes.HasPrefix(text, got) || len(got) == len(text) {
					t.Errorf("the program got %d bytes, or wrong ones", len(got))
				}
				select {
				case err := <-m.service.ends:
					if err == nil {
						t.Error("the service took it for an end")
					}
				case <-time.After(pace.Guard):
					t.Error("the service's connection goes on")
				}
				m.service.mu.Lock()
				defer m.service.mu.Unlock()
				if !bytes.HasPrefix(text, m.service.got.Bytes()) {
					t.Error("the service got other bytes than were sent")
				}
			})
		}
	}
}

// What belongs to one stream is worth nothing in another, and an Open counts once.
func TestAForwarderThatSwapsAndReplays(t *testing.T) {
	afterEach(t, func(t *testing.T, m *middle, _ bool) { swapsAndReplays(t, m) })
}

// afterEach runs a test with agents that have not had a handshake, and with agents that go
// on after one.
func afterEach(t *testing.T, test func(t *testing.T, m *middle, goingOn bool)) {
	t.Helper()
	t.Run("a whole handshake", func(t *testing.T) { test(t, newMiddle(t), false) })
	t.Run("one that goes on", func(t *testing.T) {
		m := newMiddle(t)
		m.before()
		test(t, m, true)
	})
}

// before makes a connection and ends it.
func (m *middle) before() {
	m.t.Helper()
	conn := m.dial()
	from, to, code := m.next()
	if code != "" {
		m.t.Fatal(code)
	}
	var carrying sync.WaitGroup
	carrying.Go(func() { m.carry(from, to) })
	_ = conn.CloseWrite()
	if _, err := io.ReadAll(conn); err != nil {
		m.t.Fatal(err)
	}
	carrying.Wait()
	<-m.service.ends
	m.mu.Lock()
	defer m.mu.Unlock()
	m.wire.Reset()
}

func swapsAndReplays(t *testing.T, m *middle) {
	var opens []*wirepb.Open
	m.open = func(o *wirepb.Open) { opens = append(opens, o) }
	one, two := m.dial(), m.dial()
	from1, to1, code1 := m.next()
	from2, to2, code2 := m.next()
	if code1 != "" || code2 != "" {
		t.Fatal(code1, code2)
	}
	go m.carry(from1, to2)
	go m.carry(from2, to1)
	for _, conn := range []*net.TCPConn{one, two} {
		_, _ = conn.Write([]byte("for one of the two"))
	}
	for _, conn := range []*net.TCPConn{one, two} {
		if got, err := io.ReadAll(conn); err == nil || len(got) > 0 {
			t.Errorf("swapped streams gave %q and %v", got, err)
		}
		if err := <-m.service.ends; err == nil {
			t.Error("the service took it for an end")
		}
	}
	if m.service.got.Len() > 0 {
		t.Errorf("the service got %q", m.service.got.String())
	}
	dials := m.service.dials()
	if _, _, err := m.ask(opens[0]); wire.CodeOf(err) != wire.EncryptionReplayed {
		t.Errorf("an Open that was sent before: %v", err)
	}
	if m.service.dials() != dials {
		t.Error("an Open that was sent before reached the service")
	}
}

// An Open that was made for something else reaches no service.
func TestAForwarderThatLiesAboutAStream(t *testing.T) {
	for name, tt := range map[string]struct {
		lie  func(*middle, *wirepb.Open)
		want wire.Code
	}{
		"another mapping":       {func(_ *middle, o *wirepb.Open) { o.MappingId++ }, wire.EncryptionFailed},
		"another source":        {func(m *middle, o *wirepb.Open) { m.keys.set(1, m.keys.keys[sourceClient]); o.SourceClient = 1 }, wire.EncryptionFailed},
		"another protocol":      {func(_ *middle, o *wirepb.Open) { o.MappingProtocol = "udp" }, wire.EncryptionFailed},
		"another version":       {func(_ *middle, o *wirepb.Open) { o.ListenerVersion++ }, wire.EncryptionFailed},
		"a SOCKS destination":   {func(_ *middle, o *wirepb.Open) { o.MappingProtocol = "socks5" }, wire.EncryptionFailed},
		"a changed message":     {func(_ *middle, o *wirepb.Open) { o.Seal[len(o.Seal)/2] ^= 1 }, wire.EncryptionFailed},
		"a version of tomorrow": {func(_ *middle, o *wirepb.Open) { o.Seal[0] = 9 }, wire.EncryptionFailed},
		"a key that is not its client's": {func(m *middle, _ *wirepb.Open) {
			other, _ := seal.NewKey()
			m.keys.set(sourceClient, other.Public())
		}, wire.KeyRefused},
	} {
		t.Run(name, func(t *testing.T) {
			afterEach(t, func(t *testing.T, m *middle, goingOn bool) {
				dials := m.service.dials()
				m.open = func(o *wirepb.Open) { tt.lie(m, o) }
				conn := m.dial()
				_, _, code := m.next()
				if goingOn && code == wire.EncryptionFailed { // the target may have forgotten: the source makes a whole handshake
					_, _, code = m.next()
				}
				if code != tt.want {
					t.Errorf("the target agent says %q", code)
				}
				if _, err := io.ReadAll(conn); err == nil {
					t.Error("the program's connection ended as if all were well")
				}
				if m.service.dials() != dials {
					t.Error("the service was reached")
				}
			})
		})
	}
}
func TestAForwarderCannotTakeEncryptionAway(t *testing.T) {
	for name, answer := range map[string]func([]byte) []byte{
		"no message":        func([]byte) []byte { return nil },
		"a changed message": func(b []byte) []byte { b[40] ^= 1; return b },
		"its own message":   func(b []byte) []byte { return b[:len(b)-1] },
	} {
		t.Run(name, func(t *testing.T) {
			afterEach(t, func(t *testing.T, m *middle, _ bool) {
				m.answer = answer
				conn := m.dial()
				_, _ = conn.Write([]byte("a secret"))
				from, _, code := m.next()
				if code != "" {
					t.Fatal(code)
				}
				_ = from.SetReadDeadline(time.Now().Add(pace.Guard))
				if got, err := io.ReadAll(from); err == nil || len(got) > 0 {
					t.Errorf("the source agent sent %q, and ended with %v", got, err)
				}
				if _, err := io.ReadAll(conn); err == nil {
					t.Error("the program's connection ended as if all were well")
				}
			})
		})
	}
}

// Who allows only what is encrypted from end to end gets nothing else, at either end.
func TestSealedOnly(t *testing.T) {
	m := newMiddle(t, func(c *Config) { c.SealedOnly = true })
	if _, _, err := m.ask(&wirepb.Open{MappingId: 8, Service: m.service.address, Protocol: "tcp"}); wire.CodeOf(err) != wire.EncryptionRequired {
		t.Errorf("a plain stream: %v", err)
	}
	if m.service.dials() != 0 {
		t.Error("the service was reached")
	}
	at := netip.MustParseAddrPort(m.listen)
	ack := m.source.assign(&wirepb.Assign{Version: 2, Full: true, Listeners: []*wirepb.Listener{{MappingId: 8, Protocol: "tcp",
		Host: at.Addr().String(), Port: uint32(at.Port()), Version: 3, TargetClient: targetClient, Options: `{"encryption":"transport"}`}}})
	if !bytes.Contains([]byte(ack), []byte(wire.EncryptionRequired)) {
		t.Errorf("a plain mapping: %s", ack)
	}
}

// An option that this agent cannot read asks for no less than it did.
func TestEncryptionIsNotLostAmongOptions(t *testing.T) {
	for text, want := range map[string]bool{
		"": false, `{}`: false, `{"encryption":"transport"}`: false, `{"encryption":"e2e"}`: true,
		`{"encryption":"e2e","idle_seconds":"new form"}`: true, `{"encryption":"e2e-2"}`: true, `{"encryption":7}`: true, `{`: true,
	} {
		if o := optionsOf(&wirepb.Listener{Options: text}); o.sealed() != want {
			t.Errorf("%s: sealed is %v", text, o.sealed())
		}
	}
}
