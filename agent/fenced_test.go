package agent

import (
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tunnox-net/tunnox/wire"
	"github.com/tunnox-net/tunnox/wire/wirepb"
)

// An agent in whose place another one has come goes on running, and leaves the client
// to that one: it asks again after five minutes, as the instance that it was, which
// takes nothing from anybody. Only when the other has gone does it come as a new one.
func TestAFencedAgentStandsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript(t)
		first := s.agent.currentInstance()
		s.send(wire.RefusedMessage(&wire.Refusal{Code: wire.Superseded, Message: "it is at 192.0.2.9:5", Permanent: true}))
		for range 3 {
			began := time.Now()
			s.patience = 2 * fencedPause
			hello := s.knocked()
			if waited := time.Since(began); waited < fencedPause || waited > fencedPause*5/4 {
				t.Errorf("it asked again after %v, want at least %v", waited, fencedPause)
			}
			if hello.Instance != first {
				t.Error("it came as another instance, which takes the client from the other agent")
			}
			if f := s.agent.Status().Fenced; f == nil || !strings.Contains(f.By, "192.0.2.9") {
				t.Errorf("meanwhile its status says %+v", f)
			}
			s.send(wire.RefusedMessage(&wire.Refusal{Code: wire.Superseded, Message: "it is at 192.0.2.9:5", Permanent: true}))
		}
		s.knocked()
		s.send(wire.RefusedMessage(&wire.Refusal{Code: wire.Superseded, Message: "gone"}))
		began := time.Now()
		if hello := s.welcome(600000001); hello.Instance == first || hello.Instance == "" {
			t.Errorf("it came back as %q, the instance that was fenced", hello.Instance)
		}
		if waited := time.Since(began); waited > 5*time.Second {
			t.Errorf("it came back after %v", waited)
		}
		synctest.Wait()
		if f := s.agent.Status().Fenced; f != nil {
			t.Errorf("its status still says %+v", f)
		}
	})
}

// A fenced agent leaves its addresses to the other one, which may be on the same
// machine, and ends when it is told to.
func TestAFencedAgentFreesItsAddresses(t *testing.T) {
	s := newScript(t)
	address := free(t)
	s.assign(&wirepb.Assign{Version: 1, Full: true, Listeners: []*wirepb.Listener{tcp(1, address)}})
	s.send(wire.RefusedMessage(wire.Refuse(wire.Superseded)))
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		listener, err := net.Listen("tcp", address)
		if err == nil {
			listener.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the address stays taken: %v", err)
		}
	}
	if got := s.agent.Status().Listeners; len(got) != 0 {
		t.Errorf("it still wants %v", got)
	}
}
