package flow

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/pace"
	"github.com/tunnox-net/tunnox/test/programs"
	"github.com/tunnox-net/tunnox/transport"
	"github.com/tunnox-net/tunnox/wire"
	"github.com/tunnox-net/tunnox/wire/wirepb"
)

// TestHellosOfAnAgentsAddress: who begins a TLS handshake and stops is closed after 10 s,
// also from an address that agents are connected from, and when more do so than an
// address may have at once: those wait for their turn first. Agents of the address go on,
// and new ones come in.
func TestHellosOfAnAgentsAddress(t *testing.T) {
	t.Parallel() // it waits more than it works
	p := newPair(t, programs.Serve(t))
	m := p.mapping(t, programs.Listen(t, answering("svc")).Port)
	live := programs.Dial(t, m.LocalPort)
	expect(t, live, "svc:")
	hello := clientHello(t)
	const each = 150 // twice as many are more than the 256 that one address may have
	watch := pace.Measure(t)
	began := time.Now()
	var strangers sync.WaitGroup
	for _, part := range [][]byte{hello, hello[:len(hello)/2]} {
		for range each {
			c, err := net.Dial("tcp", p.server.Agents)
			if err != nil {
				t.Fatal(err)
			}
			strangers.Go(func() {
				defer func() { _ = c.Close() }()
				if _, err := c.Write(part); err != nil {
					t.Error(err)
				}
				_ = c.SetReadDeadline(time.Now().Add(pace.Guard))
				buffer := make([]byte, 4<<10)
				for err = error(nil); err == nil; { // what the server says of its own
					_, err = c.Read(buffer)
				}
				if errors.Is(err, context.DeadlineExceeded) || isTimeout(err) {
					t.Errorf("a stranger who sent %d bytes is still connected", len(part))
				}
			})
		}
	}
	third := p.CreateClient(t, p.user.ID, "third")
	p.server.Join(t, p.API, third)
	t.Logf("an agent that came meanwhile was connected after %v", time.Since(began).Round(time.Millisecond))
	strangers.Wait()
	if took := time.Since(began); took > watch.Allow(25*time.Second) {
		t.Errorf("all strangers are gone after %v, want twice 10 s", took)
	}
	if _, err := live.Write([]byte("still")); err != nil {
		t.Error(err)
	}
	expect(t, live, "still")
}

// clientHello gives the bytes with which an agent begins a connection.
func clientHello(t *testing.T) []byte {
	t.Helper()
	near, far := net.Pipe()
	go func() {
		_ = tls.Client(near, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"tunnox/1"}}).Handshake()
	}()
	b := make([]byte, 8<<10)
	n, err := far.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	_ = far.Close()
	return b[:n]
}

func isTimeout(err error) bool {
	timeout, ok := errors.AsType[net.Error](err)
	return ok && timeout.Timeout()
}

// TestLoginsOfOneIdentity: an identity that logs in again and again gets 60 logins and
// two more each second, at a forwarder. It had 285 a second once, and filled the log with
// 115 KB/s.
func TestLoginsOfOneIdentity(t *testing.T) {
	t.Parallel()
	p := newPair(t, programs.Serve(t))
	busy := p.CreateClient(t, p.user.ID, "busy")
	credential, err := wire.ParseAuthCode(busy.AuthCode)
	if err != nil {
		t.Fatal(err)
	}
	before := len(p.server.Said(8 << 20))
	pin, err := transport.ParsePin(p.server.Pin)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	welcome, refused := 0, 0
	for n := 0; n < 300; n++ {
		switch err := p.login(t, busy.ID, credential, pin, fmt.Sprint("instance ", n)); {
		case err == nil:
			welcome++
		case wire.CodeOf(err) == wire.TooMany:
			refused++
		default:
			t.Fatalf("login %d: %v", n, err)
		}
	}
	took := time.Since(began)
	said := len(p.server.Said(8<<20)) - before
	t.Logf("300 logins in %v: %d welcome, %d refused, %d bytes of log", took.Round(time.Millisecond), welcome, refused, said)
	if most := 61 + int(2*took.Seconds()); welcome > most || welcome < 60 || welcome+refused != 300 {
		t.Errorf("%d logins were welcome in %v, want 60 to %d", welcome, took, most)
	}
	if most := 1000*welcome + 10_000; said > most {
		t.Errorf("the log grew by %d bytes, want %d at most", said, most)
	}
	if p.sourceAgent.Exited() || p.targetAgent.Exited() {
		t.Error("another identity was ended")
	}
}

// login is one login as an agent makes it, and its end.
func (p *pair) login(t *testing.T, client int64, credential wire.Credential, pin transport.Pin, instance string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), pace.Guard)
	defer cancel()
	link, err := transport.DialTLS(ctx, p.server.Agents, transport.DialConfig{Pins: []transport.Pin{pin}})
	if err != nil {
		return err
	}
	defer func() { _ = link.Close() }()
	control, err := link.Accept(ctx)
	if err != nil {
		return err
	}
	_ = control.SetDeadline(time.Now().Add(pace.Guard))
	challenge, err := wire.ReadControl(control, wire.MaxHandshake)
	if err != nil {
		return err
	}
	hello := &wirepb.Hello{Version: 1, ClientId: client, Instance: instance}
	hello.Signature, err = credential.Sign(wire.Proof{Version: 1, Nonce: challenge.GetChallenge().GetNonce(), Binding: link.Binding(),
		ClientID: client, Instance: instance})
	if err != nil {
		return err
	}
	if err := wire.WriteControl(control, &wirepb.Control{Message: &wirepb.Control_Hello{Hello: hello}}); err != nil {
		return err
	}
	answer, err := wire.ReadControl(control, wire.MaxHandshake)
	if err != nil {
		return err
	}
	if answer.GetWelcome() != nil {
		return nil
	}
	return wire.RefusalFrom(answer.GetRefused())
}
