package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/pace"
	"github.com/tunnox-net/tunnox/test/programs"
	"github.com/tunnox-net/tunnox/test/services"
)

// openEvery is the time between new connections while nodes end.
const openEvery = 5 * time.Millisecond

// paired is a source and a target agent, each with two sessions, in a cluster of
// three forwarders.
type paired struct {
	*ends
	*programs.Cluster
}

func newPaired(t *testing.T) *paired {
	t.Helper()
	c := programs.StartCluster(t, 3, services.Postgres(t), services.Redis(t))
	e := &ends{API: c.Control.API, user: c.Control.API.CreateUser(t, "ann")}
	e.source, e.target = e.CreateClient(t, e.user.ID, "source"), e.CreateClient(t, e.user.ID, "target")
	p := &paired{e, c}
	e.sourceAgent = c.Forwarders[0].Join(t, e.API, e.source, p.twice()...)
	e.targetAgent = c.Forwarders[1].Join(t, e.API, e.target, p.twice()...)
	programs.Eventually(t, 10*time.Second, func() error { return p.sessions(4) })
	return p
}

// twice are the arguments of an agent that knows every forwarder and keeps two sessions.
func (p *paired) twice() []string {
	args := []string{"--sessions", "2"}
	for _, f := range p.Forwarders {
		args = append(args, "--server", f.Agents)
	}
	return args
}

// sessions compares the sessions at all forwarders that run with those wanted.
func (p *paired) sessions(want int) error {
	sum := 0.0
	for _, f := range p.Forwarders {
		if f.Exited() {
			continue
		}
		n, err := f.Metric("tunnox_clients_online")
		if err != nil {
			return err
		}
		sum += n
	}
	if int(sum) != want {
		return fmt.Errorf("%v sessions at the forwarders, want %d", sum, want)
	}
	return nil
}

// TestNodeKilled: kill -9 of each forwarder in turn, with a new connection every 5 ms.
// Connections fail for a moment at most, agents soon have two sessions again, and an
// agent that dies with its forwarder is noticed.
func TestNodeKilled(t *testing.T) {
	p := newPaired(t)
	watch := pace.Measure(t)
	port := p.mapping(t, programs.Listen(t, programs.Echo).Port)
	lonely := p.CreateClient(t, p.user.ID, "lonely")
	for i, f := range p.Forwarders {
		agent := f.Join(t, p.API, lonely)
		load := connections(t, openEvery, port)
		time.Sleep(300 * time.Millisecond) // the load is under way
		before := load.between(time.Time{}, time.Time{})
		for _, o := range failed(before) {
			t.Errorf("with all forwarders: %v", o.err)
		}
		signal(t, agent, syscall.SIGSTOP) // it cannot tell anybody that it ends
		killed := time.Now()
		f.Kill()
		agent.Kill()
		programs.Eventually(t, 20*time.Second, func() error { return p.sessions(4) })
		again := time.Since(killed)
		time.Sleep(500 * time.Millisecond) // after this time nothing may fail any more
		load.Stop()
		after := load.between(killed.Add(-time.Second), time.Time{})
		bad := failed(after)
		var gap time.Duration
		if len(bad) > 0 {
			gap = bad[len(bad)-1].at.Sub(killed)
		}
		t.Logf("forwarder %d killed: %d of %d connections failed, the last begun after %v; the slowest took %v; all sessions again after %v",
			i+1, len(bad), len(after), gap.Round(time.Millisecond), slowest(after).Round(time.Millisecond), again.Round(time.Millisecond))
		if gap > watch.Allow(2*time.Second) && !pace.Race {
			t.Errorf("connections failed for %v", gap)
		}
		if again > watch.Allow(10*time.Second) {
			t.Errorf("agents had two sessions again after %v", again)
		}
		// The living agents are online all the time; the dead one is noticed.
		for _, id := range []int64{p.source.ID, p.target.ID} {
			if err := p.shows(id, "online"); err != nil {
				t.Error(err)
			}
		}
		if i > 0 { // a node that has started again says itself which clients it does not have any more
			f.Restart(t)
		}
		programs.Eventually(t, 20*time.Second, func() error { return p.shows(lonely.ID, "offline") })
		t.Logf("a client that died with its forwarder is shown offline after %v", time.Since(killed).Round(10*time.Millisecond))
		if i == 0 {
			f.Restart(t)
		}
		programs.Eventually(t, 10*time.Second, func() error { return echoes(port) })
	}
}

// TestRollingRestart: every forwarder is told to end and started again, one after the
// other, with a new connection every 5 ms and others that last a second. None of them
// fails.
func TestRollingRestart(t *testing.T) {
	t.Parallel()
	p := newPaired(t)
	port := p.mapping(t, programs.Listen(t, programs.Echo).Port)
	load := connections(t, openEvery, port)
	lasting := newLoad(t)
	lasting.every(50*time.Millisecond, func() outcome { return outcome{err: lasts(port, time.Second)} })
	for i, f := range p.Forwarders {
		time.Sleep(500 * time.Millisecond)
		began := time.Now()
		if err := f.Stop(); err != nil {
			t.Error(err)
		}
		ended := time.Since(began)
		f.Restart(t)
		programs.Eventually(t, 10*time.Second, func() error { return p.sessions(4) })
		t.Logf("forwarder %d ended within %v; all sessions again after %v", i+1, ended.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
	}
	time.Sleep(500 * time.Millisecond)
	allWell(t, load)
	allWell(t, lasting)
}

// lasts sends a little every so often for a time, and sees it come back.
func lasts(port int, long time.Duration) error {
	conn, err := programs.DialPort(port)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(long + 20*time.Second))
	word := make([]byte, 1024)
	for end := time.Now().Add(long); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		for i := range word {
			word[i] = byte(rand.Uint32())
		}
		sent := string(word)
		if _, err := conn.Write(word); err != nil {
			return err
		}
		if _, err := io.ReadFull(conn, word); err != nil {
			return err
		}
		if string(word) != sent {
			return errors.New("other bytes came back")
		}
	}
	if err := conn.CloseWrite(); err != nil {
		return err
	}
	_, err = io.ReadFull(conn, word)
	if !errors.Is(err, io.EOF) {
		return fmt.Errorf("the end came back as %w", err)
	}
	return nil
}

// TestNewerAgentWins: of two agents with the same client id the newer one has the
// client within a second, at its own forwarder or another, and the older one says why
// it leaves the client alone.
func TestNewerAgentWins(t *testing.T) {
	t.Parallel()
	c := start(t, 2)
	e := join(t, c.Control.API, c.Forwarders[0], c.Forwarders[1])
	port := e.mapping(t, programs.Listen(t, programs.Echo).Port)
	watch := pace.Measure(t)
	for i := range 4 {
		older := e.targetAgent
		began := time.Now()
		e.targetAgent = c.Forwarders[i/2].Join(t, e.API, e.target)
		older.Says("another agent has this identity.*superseded", 10*time.Second)
		took := time.Since(began)
		t.Logf("the older agent stood back %v after the newer was started", took.Round(time.Millisecond))
		if took > watch.Allow(5*time.Second) {
			t.Errorf("the newer agent won after %v", took)
		}
		works(t, port)
		if e.targetAgent.Exited() {
			t.Fatal("the newer agent ended")
		}
		if err := older.Stop(); err != nil {
			t.Errorf("the older agent: %v", err)
		}
	}
}

// TestMoves: an agent moves from one forwarder to the other and back, each time while
// its old session ends. Afterwards it is never shown offline.
func TestMoves(t *testing.T) {
	t.Parallel()
	const moves = 60
	c := start(t, 2)
	f := startFleet(t, c.Control.API, 1, c.Forwarders[0]) // another client: the feed is followed
	user := f.user
	moving := c.Control.API.CreateClient(t, user.ID, "moving")
	e := &ends{API: c.Control.API}
	leave := func() {}
	for i := range moves {
		at := c.Forwarders[i%2]
		began := time.Now()
		a, err := f.member(moving, 300+i, at)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- a.Run(ctx) }()
		if i%3 == 0 { // the old one goes while the new one comes
			leave()
		}
		programs.Eventually(t, 15*time.Second, func() error {
			if !f.welcomedSince(moving.ID, began) {
				return errors.New("the moving agent is not connected")
			}
			return nil
		})
		if i%3 != 0 {
			leave()
		}
		for end := time.Now().Add(50 * time.Millisecond); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
			if err := e.shows(moving.ID, "online"); err != nil {
				t.Fatalf("move %d: %v", i, err)
			}
		}
		leave = func() {
			cancel()
			<-done // fenced, or told to end: both are fine
		}
		t.Cleanup(cancel)
	}
	leave()
	programs.Eventually(t, 10*time.Second, func() error { return e.shows(moving.ID, "offline") })
}
