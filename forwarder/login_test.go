package forwarder_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"reflect"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/agent"
	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/forwarder"
	"github.com/tunnox-net/tunnox/test/pace"
	"github.com/tunnox-net/tunnox/transport"
	"github.com/tunnox-net/tunnox/wire"
	"github.com/tunnox-net/tunnox/wire/wirepb"
)

// ended waits for the agent to give up and returns why.
func (r *running) ended(t *testing.T) *agent.EndedError {
	t.Helper()
	select {
	case <-r.done:
	case <-time.After(pace.Guard):
		t.Fatal("the agent goes on")
	}
	var e *agent.EndedError
	if !errors.As(r.err, &e) {
		t.Fatalf("ended with %v", r.err)
	}
	return e
}

// fenced waits until the agent stands back for another one, of which it was told this.
func (r *running) fenced(t *testing.T, by ...string) {
	t.Helper()
	eventually(t, "the agent stands back", func() bool { return r.Status().Fenced != nil })
	for _, want := range by {
		if got := r.Status().Fenced.By; !regexp.MustCompile(want).MatchString(got) {
			t.Errorf("it was told %q, want %q", got, want)
		}
	}
	select {
	case <-r.done:
		t.Errorf("the agent ended: %v", r.err)
	default:
	}
}

func TestWrongCredentialEndsTheAgent(t *testing.T) {
	t.Parallel() // it waits more than it works
	over(t, func(t *testing.T, w *world) {
		w.agent(w.client(w.user)) // from now on the forwarder is sure of what it knows
		right, other := w.client(w.user), w.client(w.user)
		wrong, unknown := w.launch(client{right.id, other.credential}), w.launch(client{999999999, other.credential})
		for _, r := range []*running{wrong, unknown} {
			if e := r.ended(t); e.Refusal.Code != wire.BadCredential || !strings.Contains(e.Error(), "auth code") {
				t.Errorf("ended with %v", e)
			}
		}
		w.agent(right)
	})
}

func TestRotatedCredentialEndsTheSession(t *testing.T) {
	over(t, func(t *testing.T, w *world) {
		c := w.client(w.user)
		r := w.agent(c)
		fresh, err := wire.NewCredential()
		if err != nil {
			t.Fatal(err)
		}
		w.plane.do(t, domain.RotateCredential{ID: c.id, PublicKey: fresh.PublicKey()})
		if e := r.ended(t); e.Refusal.Code != wire.ClientRevoked {
			t.Errorf("ended with %v", e)
		}
		w.agent(client{c.id, fresh})
	})
}

func TestDeletedClientEndsTheAgent(t *testing.T) {
	over(t, func(t *testing.T, w *world) {
		c := w.client(w.user)
		r := w.agent(c)
		w.plane.do(t, domain.DeleteClient{ID: c.id})
		if e := r.ended(t); e.Refusal.Code != wire.ClientDeleted {
			t.Errorf("ended with %v", e)
		}
	})
}

func TestRegistrationIsLimitedPerAddress(t *testing.T) {
	w := newWorld(t, "memory")
	w.current().stop()
	w.limits = forwarder.Limits{Registrations: 2}
	w.start()
	for range 2 {
		w.agent(client{})
	}
	h := w.knock(t)
	credential, _ := wire.NewCredential()
	if r := h.hello(t, credential, func(m *wirepb.Hello) { m.ClientId, m.Register, m.PublicKey = 0, true, credential.PublicKey() }); r == nil ||
		r.Code != wire.RegistrationLimited || r.RetryAfter == 0 || r.Permanent {
		t.Fatalf("got %v", r)
	}
}

func TestIdentityIsKept(t *testing.T) {
	over(t, func(t *testing.T, w *world) {
		file := t.TempDir() + "/state/client.json"
		state := func(cfg *agent.Config) { cfg.State = &agent.State{File: file} }
		first := w.agent(client{}, state)
		id := first.ClientID()
		if err := first.stop(); err != nil {
			t.Fatal(err)
		}
		if again := w.agent(client{}, state).ClientID(); again != id || id == 0 {
			t.Errorf("the client id is %d, was %d", again, id)
		}
	})
}

// stranger is a hand-made agent: it says what it likes.
type stranger struct {
	link    transport.Session
	control transport.Stream
	nonce   []byte
	welcome *wirepb.Welcome // of answer
}

// knock reaches the forwarder and reads its challenge.
func (w *world) knock(t *testing.T) *stranger {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), pace.Guard)
	defer cancel()
	link, err := w.dial(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	return knockAt(t, link)
}

// knockAt is knock over a link.
func knockAt(t *testing.T, link transport.Session) *stranger {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), pace.Guard)
	defer cancel()
	t.Cleanup(func() { link.Close() })
	control, err := link.Accept(ctx)
	if err != nil {
		t.Fatal(err)
	}
	control.SetDeadline(time.Now().Add(pace.Guard))
	m, err := wire.ReadControl(control, wire.MaxHandshake)
	if err != nil {
		t.Fatal(err)
	}
	return &stranger{link: link, control: control, nonce: m.GetChallenge().GetNonce()}
}

// hello sends a Hello that is right but for what change does to it before it is
// signed, and returns the refusal, or nil for a welcome.
func (h *stranger) hello(t *testing.T, credential wire.Credential, change func(*wirepb.Hello)) *wire.Refusal {
	t.Helper()
	m := &wirepb.Hello{Version: 1, Instance: "by hand"}
	change(m)
	if m.Signature == nil {
		signature, err := credential.Sign(wire.Proof{Version: m.Version, Nonce: h.nonce, Binding: h.link.Binding(),
			ClientID: m.ClientId, Instance: m.Instance})
		if err != nil {
			t.Fatal(err)
		}
		m.Signature = signature
	}
	if err := wire.WriteControl(h.control, &wirepb.Control{Message: &wirepb.Control_Hello{Hello: m}}); err != nil {
		t.Fatal(err)
	}
	return h.answer(t)
}

// answer reads Welcome, which gives nil, or Refused.
func (h *stranger) answer(t *testing.T) *wire.Refusal {
	t.Helper()
	m, err := wire.ReadControl(h.control, wire.MaxHandshake)
	if err != nil {
		t.Fatalf("no answer: %v", err)
	}
	if h.welcome = m.GetWelcome(); h.welcome != nil {
		return nil
	}
	return wire.RefusalFrom(m.GetRefused())
}

// refusedWith reads on behind a welcome until the forwarder says why it ends.
func (h *stranger) refusedWith(t *testing.T, code wire.Code) {
	t.Helper()
	for {
		m, err := wire.ReadControl(h.control, wire.MaxControl)
		if err != nil {
			t.Fatalf("no reason was given: %v", err)
		}
		if m.GetRefused() == nil {
			continue
		}
		if r := wire.RefusalFrom(m.GetRefused()); r.Code != code {
			t.Errorf("refused with %v, want %s", r, code)
		}
		return
	}
}

// open asks for a stream to a mapping and returns the answer.
func (h *stranger) open(t *testing.T, mapping int64) error {
	t.Helper()
	// A service of the opener's own choice is not heard.
	return h.openWith(t, &wirepb.Open{MappingId: mapping, Service: "169.254.169.254:80"})
}

func (h *stranger) openWith(t *testing.T, open *wirepb.Open) error {
	t.Helper()
	stream, err := h.link.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	stream.SetDeadline(time.Now().Add(pace.Guard))
	if err := wire.WriteOpen(stream, open); err != nil {
		t.Fatal(err)
	}
	return wire.ReadOpened(stream)
}

// Opening somebody else's mapping, from a session that is proved, is refused as
// if there were no such mapping.
func TestForeignMappingIsRefused(t *testing.T) {
	over(t, func(t *testing.T, w *world) {
		_, target, m := w.pair(echo(t))
		stranger, other := w.client(w.newUser(domain.Limits{})), w.client(w.user)
		for _, c := range []client{stranger, other} {
			h := w.knock(t)
			if r := h.hello(t, c.credential, func(m *wirepb.Hello) { m.ClientId = c.id }); r != nil {
				t.Fatal(r)
			}
			if err := h.open(t, m.id); wire.CodeOf(err) != wire.NoSuchMapping {
				t.Errorf("got %v", err)
			}
			if err := h.open(t, 424242); wire.CodeOf(err) != wire.NoSuchMapping {
				t.Errorf("got %v", err)
			}
		}
		_ = target
		// Being the target of a mapping is no right to open it.
		back := w.client(w.user)
		h := w.knock(t)
		if r := h.hello(t, back.credential, func(m *wirepb.Hello) { m.ClientId = back.id }); r != nil {
			t.Fatal(r)
		}
		source := w.client(w.user)
		reverse := w.mapping(source, back, echo(t))
		if err := h.open(t, reverse.id); wire.CodeOf(err) != wire.NoSuchMapping {
			t.Errorf("the target opened its mapping: %v", err)
		}
	})
}

func TestProofsThatAreNone(t *testing.T) {
	t.Parallel() // it waits more than it works
	over(t, func(t *testing.T, w *world) {
		c := w.client(w.user)
		w.agent(w.client(w.user))
		earlier := w.knock(t)
		var recorded []byte
		if r := earlier.hello(t, c.credential, func(m *wirepb.Hello) {
			m.ClientId = c.id
			recorded, _ = c.credential.Sign(wire.Proof{Version: 1, Nonce: earlier.nonce, Binding: earlier.link.Binding(),
				ClientID: c.id, Instance: m.Instance})
			m.Signature = recorded
		}); r != nil {
			t.Fatal(r)
		}
		for name, try := range map[string]struct {
			change func(h *stranger, m *wirepb.Hello)
			code   wire.Code
		}{
			"replayed":          {func(h *stranger, m *wirepb.Hello) { m.ClientId, m.Signature = c.id, recorded }, wire.BadCredential},
			"of another link":   {func(h *stranger, m *wirepb.Hello) { m.ClientId = c.id; m.Signature = signFor(c, h.nonce, earlier.link) }, wire.BadCredential},
			"none":              {func(h *stranger, m *wirepb.Hello) { m.ClientId, m.Signature = c.id, make([]byte, 64) }, wire.BadCredential},
			"short":             {func(h *stranger, m *wirepb.Hello) { m.ClientId, m.Signature = c.id, []byte{1} }, wire.BadCredential},
			"no client":         {func(h *stranger, m *wirepb.Hello) {}, wire.Malformed},
			"register and id":   {func(h *stranger, m *wirepb.Hello) { m.ClientId, m.Register = c.id, true }, wire.Malformed},
			"other's key":       {func(h *stranger, m *wirepb.Hello) { m.Register, m.PublicKey = true, make([]byte, 32) }, wire.BadCredential},
			"unknown version":   {func(h *stranger, m *wirepb.Hello) { m.ClientId, m.Version = c.id, 99 }, wire.VersionUnsupported},
			"negative client":   {func(h *stranger, m *wirepb.Hello) { m.ClientId = -1 }, wire.Malformed},
			"no instance":       {func(h *stranger, m *wirepb.Hello) { m.ClientId, m.Instance, m.Signature = c.id, "", make([]byte, 64) }, wire.Malformed},
			"escape in version": {func(h *stranger, m *wirepb.Hello) { m.ClientId, m.AgentVersion = c.id, "v1\x1b[31m" }, wire.Malformed},
			"line in instance":  {func(h *stranger, m *wirepb.Hello) { m.ClientId, m.Instance = c.id, "a\nb" }, wire.Malformed},
			"turned version":    {func(h *stranger, m *wirepb.Hello) { m.ClientId, m.AgentVersion = c.id, "v\u202e1" }, wire.Malformed},
			"very old instance": {func(h *stranger, m *wirepb.Hello) {
				m.ClientId, m.Instance, m.Signature = c.id, strings.Repeat("x", 65), make([]byte, 64)
			}, wire.Malformed},
		} {
			h := w.knock(t)
			r := h.hello(t, c.credential, func(m *wirepb.Hello) { try.change(h, m) })
			if r == nil || r.Code != try.code {
				t.Errorf("%s: got %v, want %s", name, r, try.code)
			}
		}
		if _, ok := w.presences.of(c.id); !ok {
			t.Error("the session that was proved is gone")
		}
	})
}

// Who has no credential learns nothing of which clients there are: a wrong proof and a
// client that does not exist get the same answer.
func TestAStrangerIsNotToldWhichClientsThereAre(t *testing.T) {
	over(t, func(t *testing.T, w *world) {
		c := w.client(w.user)
		w.agent(w.client(w.user)) // from now on the forwarder is sure of what it knows
		var answers []wire.Refusal
		var times [2]time.Duration
		for range 3 {
			for i, id := range []int64{c.id, 999999999} {
				h := w.knock(t)
				began := time.Now()
				r := h.hello(t, c.credential, func(m *wirepb.Hello) { m.ClientId, m.Signature = id, make([]byte, 64) })
				if r == nil {
					t.Fatalf("client %d was let in", id)
				}
				times[i] += time.Since(began)
				answers = append(answers, *r)
			}
		}
		ratio := float64(times[1]) / float64(times[0])
		t.Logf("three times one that exists %v, one that does not %v, ratio %.2f", times[0], times[1], ratio)
		if ratio < 0.5 || ratio > 2 {
			t.Errorf("the time tells which clients there are: the ratio is %.2f", ratio)
		}
		if !reflect.DeepEqual(answers[0], answers[1]) || answers[0].Code != wire.BadCredential {
			t.Errorf("a client that exists: %+v; one that does not: %+v", answers[0], answers[1])
		}
	})
}

func signFor(c client, nonce []byte, link transport.Session) []byte {
	signature, _ := c.credential.Sign(wire.Proof{Version: 1, Nonce: nonce, Binding: link.Binding(), ClientID: c.id, Instance: "by hand"})
	return signature
}

// Garbage on the control stream ends that session and nothing else.
func TestGarbageOnTheControlStream(t *testing.T) {
	t.Parallel() // it waits more than it works
	over(t, func(t *testing.T, w *world) {
		_, _, m := w.pair(echo(t))
		for name, garbage := range map[string][]byte{
			"a huge frame": binary.BigEndian.AppendUint32(nil, 1<<31),
			"above 4 KiB":  append(binary.BigEndian.AppendUint32(nil, wire.MaxHandshake+1), make([]byte, 100)...),
			"no message":   append(binary.BigEndian.AppendUint32(nil, 8), 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff),
			"empty":        binary.BigEndian.AppendUint32(nil, 0),
			"http":         []byte("GET / HTTP/1.1\r\nHost: example.org\r\n\r\n"),
		} {
			h := w.knock(t)
			h.control.Write(garbage)
			if r := h.answer(t); r == nil || r.Code != wire.Malformed {
				t.Errorf("%s: got %v", name, r)
			}
			gone(t, h.link)
		}
		// The same behind a welcome, where larger frames are allowed.
		for _, garbage := range [][]byte{binary.BigEndian.AppendUint32(nil, wire.MaxControl+1), append(binary.BigEndian.AppendUint32(nil, 1), 0x07)} {
			c := w.client(w.user)
			h := w.knock(t)
			if r := h.hello(t, c.credential, func(m *wirepb.Hello) { m.ClientId = c.id }); r != nil {
				t.Fatal(r)
			}
			h.control.Write(garbage)
			h.refusedWith(t, wire.Malformed)
			gone(t, h.link)
		}
		if err := roundTrip(connect(t, m.address), "the others are well"); err != nil {
			t.Fatal(err)
		}
	})
}

// gone waits for the forwarder to end the link.
func gone(t *testing.T, link transport.Session) {
	t.Helper()
	select {
	case <-link.Done():
	case <-time.After(pace.Guard):
		t.Error("the forwarder keeps the link")
	}
}

// Strangers that say nothing are counted, bounded, and gone after the deadline;
// agents get in beside them.
func TestSilentStrangers(t *testing.T) {
	t.Parallel() // it waits more than it works
	w := newWorld(t, "memory")
	w.current().stop()
	w.limits = forwarder.Limits{Login: time.Second, LoginsPerHost: 20}
	w.start()
	var links []transport.Session
	for range 19 {
		links = append(links, w.knock(t).link)
	}
	if n := w.metric("tunnox_logins_pending"); n != 19 {
		t.Errorf("%v logins are pending, want 19", n)
	}
	w.agent(w.client(w.user))
	for _, link := range links {
		gone(t, link)
	}
	eventually(t, "none is pending", func() bool { return w.metric("tunnox_logins_pending") == 0 })

	// One byte a second is no better than none.
	h := w.knock(t)
	var dripping sync.WaitGroup
	dripping.Go(func() {
		for _, b := range []byte{0, 0, 0, 50, 1, 2, 3, 4} {
			if _, err := h.control.Write([]byte{b}); err != nil {
				return
			}
			time.Sleep(300 * time.Millisecond)
		}
	})
	gone(t, h.link)
	dripping.Wait()

	// Beyond the bound a link is cut at once.
	for range 20 {
		w.knock(t)
	}
	link, err := w.dial(context.Background(), "")
	if err != nil {
		t.Fatal(err)
	}
	gone(t, link)
}

// A stranger that opens a stream, which would hold memory until somebody reads it,
// is not asked who it is any more.
func TestAStrangerOpensNoStream(t *testing.T) {
	w := newWorld(t, "tls")
	h := w.knock(t)
	stream, err := h.link.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, _ = stream.Write(make([]byte, 60<<10)) // fails where the forwarder was faster
	gone(t, h.link)
}

// Streams with garbage instead of an Open, or nothing, end alone.
func TestGarbageInsteadOfOpen(t *testing.T) {
	over(t, func(t *testing.T, w *world) {
		c := w.client(w.user)
		h := w.knock(t)
		if r := h.hello(t, c.credential, func(m *wirepb.Hello) { m.ClientId = c.id }); r != nil {
			t.Fatal(r)
		}
		for _, garbage := range []string{"\xff\xff", "GET / HTTP/1.1\r\n\r\n", "\x00\x01\x07"} {
			stream, err := h.link.Open(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			io.WriteString(stream, garbage)
			stream.SetReadDeadline(time.Now().Add(pace.Guard))
			if err := wire.ReadOpened(stream); wire.CodeOf(err) != wire.Malformed {
				t.Errorf("%q: got %v", garbage, err)
			}
			stream.Close()
		}
		if err := h.open(t, 1); wire.CodeOf(err) != wire.NoSuchMapping {
			t.Errorf("the session is not what it was: %v", err)
		}
	})
}

// A panic in one connection ends that connection.
func TestPanicEndsOneConnection(t *testing.T) {
	over(t, func(t *testing.T, w *world) {
		_, _, m := w.pair(echo(t))
		c := w.client(w.user)
		w.plane.cursed.Store(c.id)
		h := w.knock(t)
		signature := signFor(c, h.nonce, h.link)
		err := wire.WriteControl(h.control, &wirepb.Control{Message: &wirepb.Control_Hello{Hello: &wirepb.Hello{
			Version: 1, Instance: "by hand", ClientId: c.id, Signature: signature}}})
		if err != nil {
			t.Fatal(err)
		}
		gone(t, h.link)
		eventually(t, "it is counted", func() bool { return w.metric("tunnox_connection_panics_total") == 1 })
		if !works(m.address) {
			t.Error("the others do not work any more")
		}
		eventually(t, "nothing is pending", func() bool { return w.metric("tunnox_logins_pending") == 0 })
	})
}
