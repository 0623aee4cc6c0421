package forwarder_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/agent"
	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/test/pace"
)

func TestChangedServiceTakesEffectForNewStreams(t *testing.T) {
	over(t, func(t *testing.T, w *world) {
		source, _, m := w.pair(echo(t))
		before := connect(t, m.address)
		if err := roundTrip(before, "to the old one"); err != nil {
			t.Fatal(err)
		}
		_, port := split(t, greet(t, "the new one"))
		w.plane.do(t, domain.ChangeMapping{ID: m.id, Patch: domain.Patch{"target_port": fmt.Append(nil, port)}})
		w.settled(source)
		if got, err := heard(m.address); got != "the new one" {
			t.Fatalf("got %q, %v", got, err)
		}
		if err := roundTrip(before, "still the old one"); err != nil {
			t.Fatalf("the live stream: %v", err)
		}
	})
}

func TestChangedListenerMovesAndKeepsLiveStreams(t *testing.T) {
	over(t, func(t *testing.T, w *world) {
		_, _, m := w.pair(echo(t))
		conn := connect(t, m.address)
		if err := roundTrip(conn, "a"); err != nil {
			t.Fatal(err)
		}
		moved := mapping{m.id, freeAddress(t)}
		_, port := split(t, moved.address)
		w.plane.do(t, domain.ChangeMapping{ID: m.id, Patch: domain.Patch{"local_port": fmt.Append(nil, port)}})
		w.listening(moved)
		w.closed(m)
		if err := roundTrip(connect(t, moved.address), "b"); err != nil {
			t.Fatal(err)
		}
		if err := roundTrip(conn, "c"); err != nil {
			t.Fatalf("the live stream: %v", err)
		}
	})
}

// What ends a mapping closes its listener and resets its streams, both ends.
func TestEndedMappingLosesListenerAndStreams(t *testing.T) {
	ends := map[string]func(w *world, s, d client, m mapping) domain.Command{
		"mapping deleted":  func(w *world, s, d client, m mapping) domain.Command { return domain.DeleteMapping{ID: m.id} },
		"mapping disabled": func(w *world, s, d client, m mapping) domain.Command { return domain.SetMappingEnabled{ID: m.id} },
		"target deleted":   func(w *world, s, d client, m mapping) domain.Command { return domain.DeleteClient{ID: d.id} },
	}
	for name, command := range ends {
		t.Run(name, func(t *testing.T) {
			over(t, func(t *testing.T, w *world) {
				gone := make(chan error, 1)
				source, target, m := w.pair(serve(t, func(c *net.TCPConn) {
					io.WriteString(c, "hello")
					_, err := io.Copy(io.Discard, c)
					gone <- err
				}))
				conn := connect(t, m.address)
				if _, err := io.ReadFull(conn, make([]byte, 5)); err != nil {
					t.Fatal(err)
				}
				w.plane.do(t, command(w, source, target, m))
				watch := pace.Measure(t)
				began := time.Now()
				if _, err := conn.Read(make([]byte, 1)); !isReset(err) {
					t.Errorf("the live connection got %v, want a reset", err)
				}
				<-gone
				if d := time.Since(began); d > watch.Allow(time.Second) {
					t.Errorf("that took %v", d)
				}
				w.closed(m)
			})
		})
	}
}

func TestDisabledMappingComesBack(t *testing.T) {
	over(t, func(t *testing.T, w *world) {
		_, _, m := w.pair(echo(t))
		w.plane.do(t, domain.SetMappingEnabled{ID: m.id})
		w.closed(m)
		w.plane.do(t, domain.SetMappingEnabled{ID: m.id, Enabled: true})
		w.listening(m)
		if err := roundTrip(connect(t, m.address), "again"); err != nil {
			t.Fatal(err)
		}
	})
}

// The clients of a disabled user are sent away, and are back by themselves when
// the user is enabled.
func TestDisabledUserAndClient(t *testing.T) {
	t.Parallel() // it waits more than it works
	over(t, func(t *testing.T, w *world) {
		source, target, m := w.pair(echo(t))
		off := func(c domain.Command, gone client) {
			w.plane.do(t, c)
			eventually(t, "the session ends", func() bool { _, ok := w.presences.of(gone.id); return !ok })
			if _, err := heard(m.address); err == nil {
				t.Error("a connection was carried for somebody who is disabled")
			}
		}
		off(domain.SetUserEnabled{ID: w.user}, source)
		w.plane.do(t, domain.SetUserEnabled{ID: w.user, Enabled: true})
		eventually(t, "it works again", func() bool { return works(m.address) })
		off(domain.SetClientEnabled{ID: target.id}, target)
		w.plane.do(t, domain.SetClientEnabled{ID: target.id, Enabled: true})
		eventually(t, "it works again", func() bool { return works(m.address) })
	})
}

// An address that somebody else holds is reported, tried again, and opened when
// it is free.
func TestBusyAddressIsReportedAndRetried(t *testing.T) {
	over(t, func(t *testing.T, w *world) {
		source, target := w.client(w.user), w.client(w.user)
		w.agent(target)
		w.agent(source)
		service := greet(t, "through")
		busy, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		host, port := split(t, busy.Addr().String())
		targetHost, targetPort := split(t, service)
		w.plane.do(t, domain.CreateMapping{ID: 5000, UserID: w.user, SourceClientID: source.id, TargetClientID: target.id,
			Protocol: domain.ProtocolTCP, Parts: domain.Parts{
				Origin:  domain.Origin{LocalHost: host, LocalPort: port},
				Service: domain.Service{TargetHost: targetHost, TargetPort: targetPort}}})
		eventually(t, "the failure is reported", func() bool { return w.metric("tunnox_listener_failures_total") > 0 })
		busy.Close()
		eventually(t, "the listener opens", func() bool {
			got, _ := heard(busy.Addr().String())
			return got == "through"
		})
	})
}

// From the decision to the agent's acknowledgement, over many mappings.
func TestPushLatency(t *testing.T) {
	over(t, func(t *testing.T, w *world) {
		source, target := w.client(w.user), w.client(w.user)
		w.agent(target)
		w.agent(source)
		n := 200
		if testing.Short() || pace.Race {
			n = 30
		}
		watch := pace.Measure(t)
		took := make([]time.Duration, n)
		for i := range took {
			address := freeAddress(t)
			host, port := split(t, address)
			began := time.Now()
			w.plane.do(t, domain.CreateMapping{ID: int64(5000 + i), UserID: w.user, SourceClientID: source.id, TargetClientID: target.id,
				Protocol: domain.ProtocolTCP, Parts: domain.Parts{
					Origin:  domain.Origin{LocalHost: host, LocalPort: port},
					Service: domain.Service{TargetHost: "127.0.0.1", TargetPort: 1}}})
			for !accepts(address) {
				if time.Since(began) > pace.Guard {
					t.Fatal("the listener did not open")
				}
				time.Sleep(50 * time.Microsecond)
			}
			took[i] = time.Since(began)
		}
		slices.Sort(took)
		p50, p99 := took[n/2], took[n*99/100]
		t.Logf("decision to open listener, %d mappings: p50 %v, p99 %v", n, p50, p99)
		if p99 > watch.Allow(100*time.Millisecond) && !pace.Race {
			t.Errorf("p99 is %v, want less than 100 ms", p99)
		}
		eventually(t, "the pushes are measured", func() bool { return w.metric("tunnox_push_latency_seconds") > 0 })
		if got := w.metric("tunnox_mappings_active"); got != float64(n) {
			t.Errorf("tunnox_mappings_active is %v, want %d", got, n)
		}
	})
}

func accepts(address string) bool {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return isReset(err) && !errors.Is(err, syscall.ECONNREFUSED) // reset already, so it was accepted
	}
	conn.Close()
	return true
}

// The same configuration a second time restarts no listener: a connection that
// waits in the listener's queue would be lost with it.
func TestSameConfigurationRestartsNothing(t *testing.T) {
	over(t, func(t *testing.T, w *world) {
		source, _, m := w.pair(echo(t))
		w.settled(source)
		before := w.session(source)
		inode := socketOf(t, m.address)

		w.current().stop()
		w.start()
		eventually(t, "the agent is back", func() bool {
			now, ok := w.presences.of(source.id)
			return ok && now.Session != before.Session && now.ConfigAck > 0
		})
		if got := socketOf(t, m.address); got != inode {
			t.Errorf("the listener's socket is %s, was %s", got, inode)
		}
		eventually(t, "bytes flow again", func() bool { return works(m.address) })
		// A mapping beside it changes: this one is not touched.
		other := w.mapping(source, source, echo(t))
		w.listening(other)
		if got := socketOf(t, m.address); got != inode {
			t.Errorf("the listener's socket is %s, was %s", got, inode)
		}
	})
}

// A client may be source and target of a mapping.
func TestMappingToItself(t *testing.T) {
	over(t, func(t *testing.T, w *world) {
		c := w.client(w.user)
		w.agent(c)
		m := w.mapping(c, c, greet(t, "myself"))
		w.listening(m)
		if got, err := heard(m.address); got != "myself" {
			t.Fatalf("got %q, %v", got, err)
		}
	})
}

// Two anonymous clients and a mapping of a user that neither brought along: the
// forwarder has to look that user up.
func TestMappingBetweenAnonymousClients(t *testing.T) {
	over(t, func(t *testing.T, w *world) {
		anonymous := func() client {
			a := w.agent(client{}, func(cfg *agent.Config) { cfg.State = &agent.State{File: t.TempDir() + "/client.json"} })
			id := a.ClientID()
			if !domain.IsAnonymous(id) {
				t.Fatalf("registered as %d", id)
			}
			return client{id: id}
		}
		source, target := anonymous(), anonymous()
		m := w.mapping(source, target, greet(t, "found"))
		w.listening(m)
		if got, err := heard(m.address); got != "found" {
			t.Fatalf("got %q, %v", got, err)
		}
	})
}

func ExampleNew() {
	// What a forwarder lacks is said all at once.
	_, err := newEmpty()
	fmt.Println(err)
	// Output:
	// build forwarder: no node id
	// no lookup
	// no feed
	// no directory
}
