package forwarder

import (
	"context"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tunnox-net/tunnox/broker"
	"github.com/tunnox-net/tunnox/directory"
	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/transport"
	"github.com/tunnox-net/tunnox/wire"
)

func addr(t *testing.T, s string) net.Addr {
	t.Helper()
	a, err := net.ResolveTCPAddr("tcp", s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// Logins are bounded in all and per address; a /64 of IPv6 is one address.
func TestDoorkeeperBoundsLogins(t *testing.T) {
	d := newDoorkeeper(Limits{Logins: 3, LoginsPerHost: 2}, time.Now)
	leave := map[string]func(){}
	for _, step := range []struct {
		from string
		in   bool
	}{
		{"192.0.2.1:1", true}, {"[::ffff:192.0.2.1]:2", true}, {"192.0.2.1:3", false},
		{"[2001:db8::1]:1", true}, {"198.51.100.1:1", false},
	} {
		out, refusal := d.enter(addr(t, step.from))
		if (refusal == nil) != step.in {
			t.Fatalf("%s: %v", step.from, refusal)
		}
		if refusal != nil && (refusal.Code != wire.TooMany || refusal.RetryAfter == 0) {
			t.Errorf("%s: refused with %v", step.from, refusal)
		}
		leave[step.from] = out
	}
	leave["192.0.2.1:1"]()
	leave["192.0.2.1:1"]() // leaving twice counts once
	if n := d.count(); n != 2 {
		t.Errorf("%d are waiting, want 2", n)
	}
	out, refusal := d.enter(addr(t, "[2001:db8::2:2]:1")) // the same /64
	if refusal != nil {
		t.Fatal(refusal)
	}
	leave["[::ffff:192.0.2.1]:2"]()
	if _, refusal := d.enter(addr(t, "[2001:db8::3]:1")); refusal == nil {
		t.Error("a third of one /64 got in")
	}
	out()
	leave["[2001:db8::1]:1"]()
	if len(d.hosts) != 0 || d.count() != 0 {
		t.Errorf("%d addresses and %d logins are left", len(d.hosts), d.count())
	}
}

// Registrations come back with time, per address, and what is remembered of
// addresses is bounded.
func TestDoorkeeperLimitsRegistrations(t *testing.T) {
	now := time.Unix(1e9, 0)
	d := newDoorkeeper(Limits{Registrations: 2, RegistrationsAll: 1 << 20}, func() time.Time { return now })
	one, two := addr(t, "192.0.2.1:1"), addr(t, "192.0.2.2:1")
	for range 2 {
		if r := d.register(one); r != nil {
			t.Fatal(r)
		}
	}
	if r := d.register(one); r == nil || r.Code != wire.RegistrationLimited || r.RetryAfter != 30*time.Second || r.Permanent {
		t.Errorf("the third got %v", r)
	}
	if r := d.register(two); r != nil {
		t.Errorf("another address got %v", r)
	}
	now = now.Add(31 * time.Second)
	if r := d.register(one); r != nil {
		t.Errorf("half a minute later: %v", r)
	}
	for i := range maxRegistrars + 10 {
		d.register(&net.TCPAddr{IP: net.IPv4(10, byte(i>>16), byte(i>>8), byte(i))})
	}
	if len(d.registrar) > maxRegistrars {
		t.Errorf("%d addresses are remembered", len(d.registrar))
	}
	if r := d.register(addr(t, "203.0.113.1:1")); r == nil {
		t.Error("a new address got in when all are busy")
	}
	now = now.Add(time.Hour)
	if r := d.register(addr(t, "203.0.113.1:1")); r != nil || len(d.registrar) != 1 {
		t.Errorf("an hour later: %v, %d addresses are remembered", r, len(d.registrar))
	}
}

// Many addresses together are bounded too, and who is refused for that loses
// nothing of what the address itself may.
func TestDoorkeeperLimitsRegistrationsOfAll(t *testing.T) {
	now := time.Unix(1e9, 0)
	d := newDoorkeeper(Limits{Registrations: 1, RegistrationsAll: 60}, func() time.Time { return now })
	from := func(i int) net.Addr { return &net.TCPAddr{IP: net.IPv4(10, 0, 0, byte(i))} }
	for i := range 60 {
		if r := d.register(from(i)); r != nil {
			t.Fatalf("address %d: %v", i, r)
		}
	}
	if r := d.register(from(61)); r == nil || r.Code != wire.RegistrationLimited || r.RetryAfter != time.Second {
		t.Errorf("the sixty-first got %v", r)
	}
	now = now.Add(time.Second)
	if r := d.register(from(61)); r != nil {
		t.Errorf("a second later: %v", r)
	}
}

// A source of sessions that fails, as one without descriptors does, is asked
// again; one that is closed is not.
func TestServeSurvivesFailingAccepts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, err := New(Config{Node: "n", Lookup: nowhere{}, Feed: nowhere{}, Directory: nowhere{}})
		if err != nil {
			t.Fatal(err)
		}
		from := &failing{left: 20}
		began := time.Now()
		if err := f.Serve(t.Context(), from); err != nil {
			t.Error(err)
		}
		if from.calls != 21 {
			t.Errorf("asked %d times", from.calls)
		}
		if d := time.Since(began); d < 5*time.Second || d > 20*time.Second {
			t.Errorf("that took %v: the pauses do not grow, or grow too much", d)
		}
		f.Close()
		if err := f.Serve(t.Context(), &failing{left: 1 << 30}); err != nil {
			t.Errorf("after Close: %v", err)
		}
		if err := f.Run(t.Context()); err != nil {
			t.Errorf("after Close: %v", err)
		}
	})
}

type failing struct{ left, calls int }

func (f *failing) Accept(context.Context) (transport.Session, error) {
	f.calls++
	if f.left--; f.left < 0 {
		return nil, net.ErrClosed
	}
	return nil, errors.New("too many open files")
}

// nowhere is what stands behind a forwarder that nobody connects to.
type nowhere struct {
	broker.Follower
	directory.Directory
}

func (nowhere) ClientView(context.Context, int64, domain.Position) (domain.ClientView, error) {
	return domain.ClientView{}, &domain.Error{Code: domain.CodeClientNotFound}
}

func (nowhere) IngressView(context.Context, domain.Ingress, domain.Position) (domain.IngressView, error) {
	return domain.IngressView{}, nil
}

func (nowhere) Watch(ctx context.Context, _ string, _ func(directory.Notice)) error {
	<-ctx.Done()
	return ctx.Err()
}

func (nowhere) Beat(context.Context, string, string) (directory.Beat, error) {
	return directory.Beat{}, nil
}
