package forwarder_test

import (
	"encoding/binary"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/forwarder"
	"github.com/tunnox-net/tunnox/wire"
	"github.com/tunnox-net/tunnox/wire/wirepb"
)

// oldHello is a Hello as agents sent it before they said what they carry, written
// field by field: it must stay readable whatever the messages become.
func oldHello(id int64, instance string, signature []byte) []byte {
	field := func(b []byte, number, kind int) []byte { return binary.AppendUvarint(b, uint64(number<<3|kind)) }
	text := func(b []byte, number int, s string) []byte {
		return append(binary.AppendUvarint(field(b, number, 2), uint64(len(s))), s...)
	}
	var hello []byte
	hello = binary.AppendUvarint(field(hello, 1, 0), 1)          // version
	hello = binary.AppendUvarint(field(hello, 2, 0), uint64(id)) // client_id
	hello = text(hello, 3, instance)
	hello = text(hello, 4, "0.0.9") // agent_version
	hello = text(hello, 5, string(signature))
	message := text(nil, 2, string(hello)) // Control.hello
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(message))), message...)
}

// An agent of before, which does not say what it carries, is one that carries tcp.
func TestOldHelloCarriesTCP(t *testing.T) {
	w := newWorld(t, "tls")
	source, target := w.client(w.user), w.client(w.user)
	h := w.knock(t)
	signature, err := target.credential.Sign(wire.Proof{Version: 1, Nonce: h.nonce, Binding: h.link.Binding(), ClientID: target.id, Instance: "old"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.control.Write(oldHello(target.id, "old", signature)); err != nil {
		t.Fatal(err)
	}
	if r := h.answer(t); r != nil {
		t.Fatalf("an old Hello is refused: %v", r)
	}
	if s := w.session(target); s.Protocols != "tcp" {
		t.Errorf("the directory says it carries %q, want tcp", s.Protocols)
	}
	go func() { // it takes what is opened to it, as old agents do: the Open has no protocol to look at
		stream, err := h.link.Accept(t.Context())
		if err != nil {
			return
		}
		if _, err := wire.ReadOpen(stream); err == nil {
			_ = wire.WriteOpened(stream, nil)
		}
	}()
	w.agent(source)
	if err := w.openAs(t, source, w.mapping(source, target, "127.0.0.1:1").id); err != nil {
		t.Errorf("an old agent gets no stream of tcp: %v", err)
	}
}

// openAs asks for a stream of the mapping over a session of its own, in place of the
// agent that the source client has.
func (w *world) openAs(t *testing.T, source client, mapping int64) error {
	t.Helper()
	h := w.knock(t)
	if r := h.hello(t, source.credential, func(m *wirepb.Hello) { m.ClientId, m.Instance = source.id, "opens" }); r != nil {
		t.Fatal(r)
	}
	var err error
	eventually(t, "the mapping is known", func() bool {
		err = h.open(t, mapping)
		return !errors.Is(err, wire.NoSuchMapping)
	})
	return err
}

// What an agent does not carry is neither opened to it nor given to it to listen for,
// and the refusal says who has to be updated.
func TestWhatAnAgentDoesNotCarry(t *testing.T) {
	w := newWorld(t, "tls")
	source, target := w.client(w.user), w.client(w.user)
	w.mapping(target, source, "127.0.0.1:1") // before the login: the first configuration knows of it
	h := w.knock(t)
	if r := h.hello(t, target.credential, func(m *wirepb.Hello) {
		m.ClientId, m.AgentVersion, m.Protocols = target.id, "0.9.1", []string{"other"}
	}); r != nil {
		t.Fatal(r)
	}
	for {
		m, err := wire.ReadControl(h.control, wire.MaxControl)
		if err != nil {
			t.Fatal(err)
		}
		if assign := m.GetAssign(); assign != nil {
			if len(assign.GetListeners()) > 0 {
				t.Errorf("it is told to listen for %v, and carries no tcp", assign.GetListeners())
			}
			break
		}
	}

	err := w.openAs(t, source, w.mapping(source, target, "127.0.0.1:1").id)
	refusal, ok := errors.AsType[*wire.Refusal](err)
	if !ok || refusal.Code != wire.ProtocolUnavailable || !strings.Contains(refusal.Message, "0.9.1") || !strings.Contains(refusal.Message, "tcp") {
		t.Errorf("refused with %v, want protocol_unavailable that names tcp and the agent's version", err)
	}
}

// A service of a kind that an agent learned later, or one that is to be told who the
// visitor is, is not opened to an agent that would do something else.
func TestServicesThatAnAgentDoesNotReach(t *testing.T) {
	w := newWorld(t, "tls")
	source, target := w.client(w.user), w.client(w.user)
	h := w.knock(t)
	if r := h.hello(t, target.credential, func(m *wirepb.Hello) { m.ClientId, m.Protocols = target.id, []string{"tcp"} }); r != nil {
		t.Fatal(r)
	}
	for lacking, change := range map[string]domain.Patch{
		"unix":           domain.PatchOf(domain.Service{Target: "unix:/run/app.sock"}),
		"proxy-protocol": domain.PatchOf(domain.Options{ProxyProtocol: "v2"}),
	} {
		m := w.mapping(source, target, "127.0.0.1:1")
		w.plane.do(t, domain.ChangeMapping{ID: m.id, Patch: change})
		var refusal *wire.Refusal
		eventually(t, "the change is known", func() bool {
			refusal, _ = errors.AsType[*wire.Refusal](w.openAs(t, source, m.id))
			return refusal != nil && refusal.Code == wire.ProtocolUnavailable
		})
		if !strings.Contains(refusal.Message, lacking) {
			t.Errorf("refused with %v, want a word of %s", refusal, lacking)
		}
	}
}

// Names of protocols are kept in the directory and shown: they are short words.
func TestHelloWithBadProtocolsIsRefused(t *testing.T) {
	w := newWorld(t, "memory")
	c := w.client(w.user)
	for name, protocols := range map[string][]string{
		"a comma": {"tcp,udp"}, "an empty one": {""}, "a long one": {strings.Repeat("x", 17)},
		"an escape": {"\x1b[2J"}, "too many": make17(),
	} {
		h := w.knock(t)
		if r := h.hello(t, c.credential, func(m *wirepb.Hello) { m.ClientId, m.Protocols = c.id, protocols }); r == nil || r.Code != wire.Malformed {
			t.Errorf("%s: %v, want malformed", name, r)
		}
	}
}

func make17() (names []string) {
	for i := range 17 {
		names = append(names, "p"+string(rune('a'+i)))
	}
	return names
}

// Options of a mapping come with an agent's command; what is no option is refused with
// its name, before anybody decides.
func TestCommandWithOptions(t *testing.T) {
	_, c, r, _ := commanding(t)
	for _, bad := range []string{`{"idle_second":5}`, `{"idle_seconds":"x"}`, `[]`, `{"idle_seconds":5}x`, `null`} {
		result, err := r.Do(t.Context(), &wirepb.Command{Command: &wirepb.Command_CreateMapping{CreateMapping: &wirepb.CreateMapping{Options: bad}}})
		if err != nil || result.GetCode() != string(domain.CodeInvalid) {
			t.Errorf("options %s: %v, %v, want %s", bad, result, err, domain.CodeInvalid)
		}
	}
	go r.Do(t.Context(), &wirepb.Command{Command: &wirepb.Command_CreateMapping{CreateMapping: &wirepb.CreateMapping{Options: `{"idle_seconds":5}`}}})
	if got := c.next(t).Create; got.IdleSeconds != 5 {
		t.Errorf("the command that comes has %+v, want idle_seconds 5", got.Options)
	}
	c.answer <- errors.New("enough")
}

// An agent that lives and does not answer an open in time is overloaded, or its link is.
// Its service is not blamed, whom nobody knows to have been asked.
func TestASilentAgentIsCalledOverloaded(t *testing.T) {
	w := newWorld(t, "tls")
	w.current().stop()
	w.limits = forwarder.Limits{Open: 200 * time.Millisecond}
	w.start()
	source, target := w.client(w.user), w.client(w.user)
	h := w.knock(t)
	if r := h.hello(t, target.credential, func(m *wirepb.Hello) { m.ClientId = target.id }); r != nil {
		t.Fatal(r)
	}
	w.session(target)
	w.agent(source)
	if err := w.openAs(t, source, w.mapping(source, target, "127.0.0.1:1").id); wire.CodeOf(err) != wire.TargetOverloaded {
		t.Errorf("refused with %v, want %s", err, wire.TargetOverloaded)
	}
}
