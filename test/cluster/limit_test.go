package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/directory"
	"github.com/tunnox-net/tunnox/test/programs"
	"github.com/tunnox-net/tunnox/test/services"
	"github.com/tunnox-net/tunnox/transport"
	"github.com/tunnox-net/tunnox/wire"
	"github.com/tunnox-net/tunnox/wire/wirepb"
)

// fillTime bounds the time until places of closed connections can be used again.
const fillTime = 10 * time.Second

// scattered is a source agent, made by hand, with a session at every forwarder of a
// cluster. It opens the connections of one mapping through any forwarder. A real agent
// uses the oldest of its sessions.
type scattered struct {
	*programs.Cluster
	mapping int64
	links   []transport.Session

	mu   sync.Mutex
	open []map[transport.Stream]bool // guarded by mu; by forwarder
}

// scatter makes it for a new mapping to an echo, under a limit unless that is negative.
func scatter(t *testing.T, c *programs.Cluster, name string, limit int) *scattered {
	t.Helper()
	api := c.Control.API
	user := api.CreateUser(t, name)
	unlimited(t, api, user.ID)
	if limit >= 0 {
		api.Do(t, http.MethodPut, fmt.Sprintf("/api/v1/users/%d/quota", user.ID), map[string]any{"max_clients": nil, "max_mappings": nil,
			"max_active_mappings": nil, "max_connections_per_mapping": limit, "total_bandwidth_limit": nil, "monthly_traffic_limit": nil}, nil)
	}
	source, target := api.CreateClient(t, user.ID, "source"), api.CreateClient(t, user.ID, "target")
	c.Forwarders[0].Join(t, api, target)
	m := api.CreateMapping(t, programs.Mapping{UserID: user.ID, Protocol: "tcp", Source: source.ID, Target: target.ID,
		LocalPort: programs.FreePort(t), TargetHost: "127.0.0.1", TargetPort: programs.Listen(t, programs.Echo).Port})
	s := &scattered{Cluster: c, mapping: m.ID}
	for _, f := range c.Forwarders {
		link, err := byHand(t, f, source)
		if err != nil {
			t.Fatal(err)
		}
		s.links, s.open = append(s.links, link), append(s.open, map[transport.Stream]bool{})
	}
	t.Cleanup(s.close)
	return s
}

// byHand is a session as an agent has one.
func byHand(t *testing.T, f *programs.Server, as programs.Client) (transport.Session, error) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	pin, err := transport.ParsePin(f.Pin)
	if err != nil {
		return nil, err
	}
	credential, err := wire.ParseAuthCode(as.AuthCode)
	if err != nil {
		return nil, err
	}
	link, err := transport.DialTLS(ctx, f.Agents, transport.DialConfig{Pins: []transport.Pin{pin}})
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { _ = link.Close() })
	control, err := link.Accept(ctx)
	if err != nil {
		return nil, err
	}
	_ = control.SetDeadline(time.Now().Add(10 * time.Second))
	m, err := wire.ReadControl(control, wire.MaxHandshake)
	if err != nil {
		return nil, err
	}
	hello := &wirepb.Hello{Version: 1, Instance: "by hand", ClientId: as.ID}
	hello.Signature, err = credential.Sign(wire.Proof{Version: 1, Nonce: m.GetChallenge().GetNonce(), Binding: link.Binding(),
		ClientID: as.ID, Instance: hello.Instance})
	if err != nil {
		return nil, err
	}
	if err := wire.WriteControl(control, &wirepb.Control{Message: &wirepb.Control_Hello{Hello: hello}}); err != nil {
		return nil, err
	}
	if m, err = wire.ReadControl(control, wire.MaxHandshake); err != nil {
		return nil, err
	}
	if m.GetWelcome() == nil {
		return nil, wire.RefusalFrom(m.GetRefused())
	}
	return link, control.SetDeadline(time.Time{})
}

// try opens a connection through a forwarder and keeps it open.
func (s *scattered) try(at int) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	stream, err := s.links[at].Open(ctx)
	if err != nil {
		return err
	}
	_ = stream.SetDeadline(time.Now().Add(20 * time.Second))
	if err = wire.WriteOpen(stream, &wirepb.Open{MappingId: s.mapping}); err == nil {
		err = wire.ReadOpened(stream)
	}
	if err != nil {
		_ = stream.Close()
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open[at][stream] = true
	return nil
}

// tryMany opens this many connections through each of some forwarders at once. Only the
// limit may refuse them.
func (s *scattered) tryMany(t *testing.T, each int, at ...int) (accepted, refused int) {
	t.Helper()
	answers := make(chan error)
	for _, i := range at {
		for range each {
			go func() { answers <- s.try(i) }()
		}
	}
	for range each * len(at) {
		switch err := <-answers; {
		case err == nil:
			accepted++
		case errors.Is(err, wire.QuotaConnections):
			refused++
		default:
			t.Errorf("a connection failed with %v", err)
		}
	}
	return accepted, refused
}

func (s *scattered) live() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, streams := range s.open {
		n += len(streams)
	}
	return n
}

func (s *scattered) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, streams := range s.open {
		for stream := range streams {
			_ = stream.Close()
		}
		clear(streams)
	}
}

// gone removes the connections through a forwarder that has died.
func (s *scattered) gone(at int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.open[at])
}

// fill opens connections through a forwarder until this many are open, and no more can
// be opened.
func (s *scattered) fill(t *testing.T, limit time.Duration, at, want int) {
	t.Helper()
	s.fillTo(t, limit, at, want)
	if _, refused := s.tryMany(t, 3, at); refused != 3 {
		t.Fatalf("%d of 3 more were refused", refused)
	}
}

// TestLimitOverForwarders: a mapping may have ten connections, and has ten, however
// many begin at once through three forwarders. This also holds when they move from one
// forwarder to another, when Redis is emptied, and when a forwarder is killed.
func TestLimitOverForwarders(t *testing.T) {
	t.Parallel()
	redis := services.StartRedis(t)
	c := programs.StartCluster(t, 3, services.Postgres(t), redis.URL())
	costs(t, c)
	s := scatter(t, c, "ann", 10)
	programs.Eventually(t, 10*time.Second, func() error { return s.try(0) })
	s.close()
	for round := range 3 {
		accepted, refused := s.tryMany(t, 20, 0, 1, 2)
		if accepted != 10 || refused != 50 {
			t.Fatalf("%d of 60 were accepted and %d refused, want 10 and 50", accepted, refused)
		}
		s.close()
		began := time.Now()
		s.fill(t, fillTime, round, 10)
		t.Logf("10 again through forwarder %d after %v", round+1, time.Since(began).Round(time.Millisecond))
		s.close()
	}
	s.fillTo(t, fillTime, 0, 4)
	s.fillTo(t, fillTime, 1, 10)
	redis.Flush(t)
	flushed := time.Now()
	for time.Since(flushed) < directory.Settle+2*time.Second {
		if accepted, _ := s.tryMany(t, 2, 0, 1, 2); accepted > 0 {
			t.Fatalf("%d more were accepted %v after Redis was emptied", accepted, time.Since(flushed))
		}
	}
	s.close()
	s.fill(t, fillTime, 2, 10)
	s.close()

	s.fillTo(t, fillTime, 2, 7)
	s.fillTo(t, fillTime, 0, 10)
	c.Forwarders[2].Kill()
	killed := time.Now()
	s.gone(2)
	s.fill(t, directory.TTL+10*time.Second, 1, 10)
	t.Logf("a killed forwarder's share was free after %v", time.Since(killed).Round(time.Millisecond))
	s.close()
	c.Forwarders[2].Restart(t)
}

// fillTo opens connections through a forwarder until so many are open.
func (s *scattered) fillTo(t *testing.T, limit time.Duration, at, want int) {
	t.Helper()
	programs.Eventually(t, limit, func() error {
		if s.live() < want {
			_ = s.try(at)
		}
		if n := s.live(); n != want {
			return fmt.Errorf("%d connections are open, want %d", n, want)
		}
		return nil
	})
}

// costs prints what a limit adds to the set-up of a connection through the first
// forwarder, and checks that a connection without a limit makes no call.
func costs(t *testing.T, c *programs.Cluster) {
	t.Helper()
	calls := func() float64 {
		n, err := c.Forwarders[0].Sum("tunnox_connection_shares_total")
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	took := map[string][]time.Duration{}
	once := func(name string, s *scattered) {
		began := time.Now()
		if err := s.try(0); err != nil {
			t.Fatal(err)
		}
		took[name] = append(took[name], time.Since(began))
	}
	without, with := scatter(t, c, "without", -1), scatter(t, c, "with", 1000)
	for _, s := range []*scattered{without, with} {
		programs.Eventually(t, fillTime, func() error { return s.try(1) })
	}
	for range 100 {
		once("without", without)
	}
	if n := calls(); n != 0 {
		t.Errorf("%v calls for connections without a limit", n)
	}
	for range 300 {
		once("without", without)
		once("with", with)
	}
	for _, name := range []string{"without", "with"} {
		slices.Sort(took[name])
		t.Logf("%s a limit: p50 %v, p90 %v, p99 %v", name, quantile(took[name], .5), quantile(took[name], .9), quantile(took[name], .99))
	}
	n := calls()
	t.Logf("%v calls of the directory for %d connections", n, len(took["with"]))
	if n > 100 {
		t.Errorf("%v calls", n)
	}
	without.close()
	with.close()
}
