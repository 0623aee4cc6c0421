package transport

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/pace"
)

// closedBy waits until the peer has closed the connection, and tells when.
func closedBy(t *testing.T, c net.Conn) time.Duration {
	t.Helper()
	start := time.Now()
	_ = c.SetReadDeadline(start.Add(10 * time.Second))
	_, err := io.Copy(io.Discard, c)
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		t.Fatal("the connection stays open")
	}
	return time.Since(start)
}

func dialRaw(t *testing.T, l *TLSListener) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func noStrangers(t *testing.T, l *TLSListener) {
	t.Helper()
	for end := time.Now().Add(pace.Guard); l.Strangers() != 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d strangers are left", l.Strangers())
		}
	}
}

// Silent, slow, lying and half-hearted peers are gone in time and leave nothing.
func TestStrangersHaveDeadlines(t *testing.T) {
	watch := pace.Measure(t)
	l, pin := startTLS(t, func(c *ListenConfig) {
		c.FirstByte, c.Handshake, c.Authenticate = 50*time.Millisecond, 200*time.Millisecond, 400*time.Millisecond
	})
	t.Run("silent", func(t *testing.T) {
		if took := closedBy(t, dialRaw(t, l)); took < 40*time.Millisecond || took > watch.Allow(2*time.Second) {
			t.Errorf("closed after %v", took)
		}
	})
	t.Run("one byte at a time", func(t *testing.T) {
		c := dialRaw(t, l)
		hello := recordOf(t)
		go func() {
			for _, b := range hello {
				if _, err := c.Write([]byte{b}); err != nil {
					return
				}
				time.Sleep(20 * time.Millisecond)
			}
		}()
		if took := closedBy(t, c); took < 100*time.Millisecond || took > watch.Allow(3*time.Second) {
			t.Errorf("closed after %v", took)
		}
	})
	t.Run("garbage", func(t *testing.T) {
		c := dialRaw(t, l)
		_, _ = io.WriteString(c, strings.Repeat("GET / HTTP/1.1\r\n", 100))
		closedBy(t, c)
	})
	t.Run("another protocol", func(t *testing.T) {
		c := tls.Client(dialRaw(t, l), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
		if err := c.Handshake(); err == nil {
			closedBy(t, c)
		}
		c = tls.Client(dialRaw(t, l), &tls.Config{InsecureSkipVerify: true})
		if err := c.Handshake(); err == nil {
			closedBy(t, c)
		}
	})
	t.Run("old TLS", func(t *testing.T) {
		c := tls.Client(dialRaw(t, l), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{protocolName}, MaxVersion: tls.VersionTLS12})
		if err := c.Handshake(); err == nil {
			t.Error("TLS 1.2 was accepted")
		}
	})
	t.Run("never admitted", func(t *testing.T) {
		s, err := DialTLS(within(t, 10*time.Second), l.Addr().String(), DialConfig{Pins: []Pin{pin}})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		theirs, err := l.Accept(within(t, 10*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		defer theirs.Close()
		select {
		case <-s.Done():
		case <-time.After(pace.Guard):
			t.Error("a stranger stays")
		}
	})
	t.Run("admitted", func(t *testing.T) {
		s, err := DialTLS(within(t, 10*time.Second), l.Addr().String(), DialConfig{Pins: []Pin{pin}})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		theirs, err := l.Accept(within(t, 10*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		defer theirs.Close()
		theirs.Admit()
		select {
		case <-s.Done():
			t.Errorf("the session ended: %v", s.Err())
		case <-time.After(600 * time.Millisecond): // longer than any of the deadlines
		}
	})
	noStrangers(t, l)
}

// recordOf gives the first bytes of a handshake.
func recordOf(t *testing.T) []byte {
	c1, c2 := net.Pipe()
	go func() {
		_ = tls.Client(c1, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{protocolName}}).Handshake()
	}()
	b := make([]byte, 200)
	if _, err := io.ReadFull(c2, b); err != nil {
		t.Fatal(err)
	}
	_ = c1.Close()
	_ = c2.Close()
	return b
}

// A flood of connections that say nothing takes bounded room and keeps nobody
// else out: the oldest go first.
func TestFloodOfStrangers(t *testing.T) {
	const most = 20
	l, pin := startTLS(t, func(c *ListenConfig) { c.MaxPerAddress, c.hearing = most, 50*time.Millisecond })
	ctx := within(t, 20*time.Second)
	agent, err := DialTLS(ctx, l.Addr().String(), DialConfig{Pins: []Pin{pin}})
	if err != nil {
		t.Fatal(err)
	}
	defer agent.Close()
	known, err := l.Accept(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer known.Close()
	known.Admit()
	for i := range 10 * most {
		_ = dialRaw(t, l)
		if n := l.Strangers(); n > most {
			t.Fatalf("%d strangers", n)
		}
		if i%most != 0 {
			continue
		}
		if _, err := agent.Ping(ctx); err != nil {
			t.Fatalf("the admitted agent: %v", err)
		}
		late, err := DialTLS(ctx, l.Addr().String(), DialConfig{Pins: []Pin{pin}})
		if err != nil {
			t.Fatalf("a late agent: %v", err)
		}
		theirs, err := l.Accept(ctx)
		if err != nil {
			t.Fatal(err)
		}
		theirs.Admit()
		_ = late.Close()
		_ = theirs.Close()
	}
}

func TestFloodFromManyAddresses(t *testing.T) {
	const most = 10
	l, _ := startTLS(t, func(c *ListenConfig) { c.MaxStrangers, c.hearing = most, 50*time.Millisecond })
	for range 5 * most {
		_ = dialRaw(t, l)
	}
	for end := time.Now().Add(pace.Guard); l.Strangers() != most; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d strangers, want %d", l.Strangers(), most)
		}
	}
}

// gatedConn lets nothing be read until its gate opens.
type gatedConn struct {
	net.Conn
	gate <-chan struct{}
}

func (c gatedConn) Read(p []byte) (int, error) {
	<-c.gate
	return c.Conn.Read(p)
}

// Agents that all come back at the same moment do not push each other out: those
// whose handshake is under way get through, and those that came after them wait for
// their turn. Silent ones go first.
func TestHerdGetsThrough(t *testing.T) {
	t.Parallel()
	const most = 10
	hearing := time.Duration(2 * pace.Now() * float64(time.Second))
	l, pin := startTLS(t, func(c *ListenConfig) {
		c.MaxStrangers, c.MaxPerAddress = most, most
		// The others say hello in less, however loaded the machine, and nothing else
		// sends anybody away.
		c.hearing = hearing
		c.FirstByte, c.Handshake, c.Authenticate, c.Wait = 4*pace.Guard, 4*pace.Guard, 4*pace.Guard, 4*pace.Guard
	})
	ctx := within(t, hearing+20*time.Second)
	for range most {
		_ = dialRaw(t, l) // says nothing
	}
	reaches := func(what string, want int, n func() int) {
		t.Helper()
		if !pace.Until(hearing+10*time.Second, time.Millisecond, func() bool { return n() == want }) {
			t.Fatalf("%d %s, want %d", n(), what, want)
		}
	}
	locked := func(n func() int) func() int {
		return func() int {
			l.gate.mu.Lock()
			defer l.gate.mu.Unlock()
			return n()
		}
	}
	reaches("strangers", most, l.Strangers)
	gate := make(chan struct{})
	herd := make(chan error, 3*most)
	join := func() {
		s, err := DialTLS(ctx, l.Addr().String(), DialConfig{Pins: []Pin{pin}, Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			raw, err := new(net.Dialer).DialContext(ctx, network, address)
			return gatedConn{raw, gate}, err
		}})
		if err == nil {
			t.Cleanup(func() { _ = s.Close() })
		}
		herd <- err
	}
	for range most {
		go join()
	}
	reaches("have said hello", most, locked(func() (n int) {
		for e := l.gate.all.served.Front(); e != nil; e = e.Next() {
			if e.Value.(*Stranger).spoken {
				n++
			}
		}
		return n
	}))
	for range 2 * most {
		go join()
	}
	reaches("wait", 2*most, locked(func() int { return l.gate.lines.count }))
	if n := l.Strangers(); n != most {
		t.Errorf("%d strangers", n)
	}
	close(gate)
	for range 3 * most {
		theirs, err := l.Accept(ctx)
		if err != nil {
			t.Fatal(err)
		}
		theirs.Admit()
		t.Cleanup(func() { _ = theirs.Close() })
	}
	for range 3 * most {
		if err := <-herd; err != nil {
			t.Error(err)
		}
	}
	noStrangers(t, l)
}

// Connections wait for a bounded time and in bounded number.
func TestWaitingIsBounded(t *testing.T) {
	t.Parallel()
	l, pin := startTLS(t, func(c *ListenConfig) {
		c.MaxStrangers, c.MaxPerAddress, c.MaxWaiting = 2, 2, 6
		c.Handshake, c.Wait = time.Second, time.Second
	})
	ctx := within(t, 10*time.Second)
	ended, gate := make(chan struct{}), make(chan struct{})
	const all = 2 + 3 + 1 // served, waiting, too many
	for range all {
		go func() {
			s, err := DialTLS(ctx, l.Addr().String(), DialConfig{Pins: []Pin{pin}, Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
				raw, err := new(net.Dialer).DialContext(ctx, network, address)
				return gatedConn{raw, gate}, err // says hello and hears nothing
			}})
			if err == nil { // it may have heard the server's part of the handshake after all
				_ = s.Close()
			}
			ended <- struct{}{}
		}()
	}
	most := 0
	for n := -1; n != 0; time.Sleep(time.Millisecond) {
		l.gate.mu.Lock()
		n = l.gate.lines.count
		if most == 0 && n == 0 {
			n = -1 // nobody has come yet
		}
		most = max(most, n)
		if n > 3 || l.gate.all.len() > 2 {
			t.Errorf("%d wait, %d are served", n, l.gate.all.len())
		}
		l.gate.mu.Unlock()
		if ctx.Err() != nil {
			t.Fatal("they wait for ever")
		}
	}
	noStrangers(t, l)
	close(gate)
	for range all {
		<-ended
	}
	if most != 3 || len(l.gate.lines.byHost) != 0 || l.gate.lines.turns.Len() != 0 {
		t.Errorf("%d waited, %d lines are left", most, len(l.gate.lines.byHost))
	}
}

// Who has said hello and waits for this side, which has thousands of handshakes to
// compute, is not sent away for that.
func TestOwnSlownessIsNotThePeers(t *testing.T) {
	l, pin := startTLS(t, func(c *ListenConfig) {
		c.FirstByte, c.Handshake, c.Authenticate = 100*time.Millisecond, 100*time.Millisecond, 100*time.Millisecond
	})
	for range cap(l.computing) {
		l.computing <- struct{}{}
	}
	came := make(chan error, 1)
	go func() {
		s, err := DialTLS(within(t, 10*time.Second), l.Addr().String(), DialConfig{Pins: []Pin{pin}})
		if err == nil {
			defer s.Close()
		}
		came <- err
	}()
	select {
	case err := <-came:
		t.Fatalf("it did not wait: %v", err)
	case <-time.After(500 * time.Millisecond): // all of its own time, several times over
	}
	for range cap(l.computing) {
		<-l.computing
	}
	if err := <-came; err != nil {
		t.Error(err)
	}
	noStrangers(t, l)
}

// Of several addresses each has its turn, however many of one wait.
func TestLinesTakeTurns(t *testing.T) {
	ls := newLines()
	for _, host := range []string{"a", "a", "a", "a", "b", "b", "c"} {
		ls.add(&Stranger{host: host})
	}
	gone := &Stranger{host: "d"}
	ls.add(gone)
	if !ls.remove(gone) || ls.remove(gone) || ls.of("a") != 4 || ls.of("d") != 0 {
		t.Fatal("removing one from its line")
	}
	order := ""
	for _, full := range []string{"", "", "c", "c", "", ""} {
		if s := ls.next(func(host string) bool { return host != full }); s != nil {
			order += s.host
		}
	}
	if order != "ababca" {
		t.Errorf("the order is %q", order)
	}
	if s := ls.next(func(string) bool { return false }); s != nil || ls.count != 1 {
		t.Errorf("%v, %d wait", s, ls.count)
	}
}

// failingListener fails its first accepts as a process without descriptors does.
type failingListener struct {
	net.Listener
	left atomic.Int32
}

func (l *failingListener) Accept() (net.Conn, error) {
	if l.left.Add(-1) >= 0 {
		return nil, &net.OpError{Op: "accept", Err: syscall.EMFILE}
	}
	return l.Listener.Accept()
}

func TestAcceptSurvivesEMFILE(t *testing.T) {
	good, pin := startTLS(t, nil)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	failing := &failingListener{Listener: ln}
	failing.left.Store(4)
	var log bytes.Buffer
	l, err := ListenTLS(failing, good.config, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	s, err := DialTLS(within(t, 10*time.Second), ln.Addr().String(), DialConfig{Pins: []Pin{pin}})
	if err != nil {
		t.Fatal(err)
	}
	_ = s.Close()
	_ = l.Close()
	if n := strings.Count(log.String(), "cannot accept"); n != 1 {
		t.Errorf("%d lines for one outage:\n%s", n, log.String())
	}
}

func TestListenerClose(t *testing.T) {
	l, pin := startTLS(t, nil)
	ctx := within(t, 10*time.Second)
	agent, err := DialTLS(ctx, l.Addr().String(), DialConfig{Pins: []Pin{pin}})
	if err != nil {
		t.Fatal(err)
	}
	defer agent.Close()
	kept, err := l.Accept(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()
	kept.Admit()
	pending := dialRaw(t, l)
	waiting, err := DialTLS(ctx, l.Addr().String(), DialConfig{Pins: []Pin{pin}})
	if err != nil {
		t.Fatal(err)
	}
	accepts := make(chan error, 1)
	for range 2 {
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	go func() { _, err := l.Accept(context.Background()); accepts <- err }()
	if err := <-accepts; !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept: %v", err)
	}
	closedBy(t, pending)
	select {
	case <-waiting.Done():
	case <-ctx.Done():
		t.Error("a session nobody accepted stays")
	}
	_ = waiting.Close()
	if _, err := agent.Ping(ctx); err != nil {
		t.Errorf("an accepted session has gone with the listener: %v", err)
	}
	if _, err := ListenTLS(nil, ListenConfig{}, nil); err == nil {
		t.Error("a listener without certificate")
	}
}

// TestStrangersLeaveDescriptors: a process that may have few goes on with what
// else it does, however many connect.
func TestStrangersLeaveDescriptors(t *testing.T) {
	for few, want := range map[int][2]int{0: {2048, 16384}, 1 << 20: {2048, 16384}, 20000: {2048, 10000}, 4096: {1024, 2048}, 1024: {256, 512}} {
		strangers, waiting := roomFor(few)
		if [2]int{strangers, waiting} != want {
			t.Errorf("of %d descriptors %d and %d, want %v", few, strangers, waiting, want)
		}
	}
	if n := descriptors(); n < 16 {
		t.Errorf("this process may have %d descriptors", n)
	}
}
