package control

import (
	"context"
	"encoding/pem"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tunnox-net/tunnox/bridge"
)

func TestRenewerRenewsInTime(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		vault := NewFileVault(dir)
		a, err := OpenAuthority(t.Context(), vault, AuthorityOptions{})
		must(t, err)
		var (
			mu     sync.Mutex // guards both
			issued []time.Time
			away   bool
		)
		set := func(to bool) { mu.Lock(); defer mu.Unlock(); away = to }
		all := func() []time.Time { mu.Lock(); defer mu.Unlock(); return slices.Clone(issued) }
		registry := prometheus.NewRegistry()
		r, err := NewRenewer(t.Context(), RenewerConfig{Name: "node", Registry: registry,
			Issue: func(_ context.Context, current *Issued) (Issued, error) {
				mu.Lock()
				defer mu.Unlock()
				if (current == nil) != (len(issued) == 0) {
					t.Error("the first has one before it, or the next has none")
				}
				if away {
					return Issued{}, errors.New("nobody there")
				}
				issued = append(issued, time.Now())
				return a.IssueNode("node-001")
			}})
		must(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		for len(all()) < 20 {
			time.Sleep(time.Minute)
			c, err := r.Certificate()
			must(t, err)
			if left := time.Until(c.Leaf.NotAfter); left < 4*time.Hour {
				t.Fatalf("%v are left", left)
			}
		}
		differ, issued := false, all()
		for i := range issued[1:] {
			d := issued[i+1].Sub(issued[i])
			if d < 14*time.Hour || d > 18*time.Hour {
				t.Errorf("renewed after %v of 24 hours", d)
			}
			differ = differ || (d-issued[1].Sub(issued[0])).Abs() > 10*time.Minute
		}
		if !differ {
			t.Error("renewed at equal intervals: no jitter")
		}
		// While nobody renews it, it is tried on, and what there is stays.
		set(true)
		before := r.Expires()
		time.Sleep(30 * time.Hour)
		if !r.Expires().Equal(before) || time.Now().Before(before) {
			t.Error("the certificate changed with nobody there")
		}
		set(false)
		time.Sleep(8 * time.Minute)
		if !time.Now().Before(r.Expires()) {
			t.Error("not renewed within 8 minutes of the control plane's return")
		}
		cancel()
		must(t, <-done)
		families, err := registry.Gather()
		must(t, err)
		if v := families[0].Metric[0].GetGauge().GetValue(); v != float64(r.Expires().Unix()) {
			t.Errorf("the metric says %v", v)
		}
	})
}

// sleepyClock is a clock like the machine's, whose monotonic reading stands still
// while the machine is asleep.
type sleepyClock struct {
	base  time.Time // with a monotonic reading, which times of a bubble do not have
	began time.Time // in the bubble

	mu     sync.Mutex
	asleep time.Duration // guarded by mu
}

func (c *sleepyClock) sleep(d time.Duration) { c.mu.Lock(); defer c.mu.Unlock(); c.asleep += d }

// Now gives the wall time of a machine that has slept, with the monotonic reading of
// one that has not. Package time has no way to make such a value, and machines do.
func (c *sleepyClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	type reading struct {
		wall uint64
		mono int64
		loc  uintptr
	}
	awake := c.base.Add(time.Since(c.began))
	now := awake.Add(c.asleep)
	(*reading)(unsafe.Pointer(&now)).mono = (*reading)(unsafe.Pointer(&awake)).mono
	return now
}

// A machine that slept over the time of a renewal renews within a minute of waking
// up, and says in between that the certificate has ended.
func TestRenewerRenewsAfterSleep(t *testing.T) {
	dir, base := t.TempDir(), time.Now()
	synctest.Test(t, func(t *testing.T) {
		clock := &sleepyClock{base: base, began: time.Now()}
		before := clock.Now()
		clock.sleep(time.Hour)
		if after := clock.Now(); after.Sub(before) != 0 || after.Round(0).Sub(before.Round(0)) != time.Hour {
			t.Fatalf("this clock does not sleep: %v, %v", after.Sub(before), after.Round(0).Sub(before.Round(0)))
		}
		a, err := OpenAuthority(t.Context(), NewFileVault(dir), AuthorityOptions{Now: clock.Now})
		must(t, err)
		var issued, away atomic.Int64
		r, err := NewRenewer(t.Context(), RenewerConfig{Name: "node", Now: clock.Now, Issue: func(context.Context, *Issued) (Issued, error) {
			if away.Load() != 0 {
				return Issued{}, unreachable(errors.New("away"))
			}
			issued.Add(1)
			return a.IssueNode("node-001")
		}})
		must(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		time.Sleep(time.Hour)
		must(t, r.Check(ctx))
		if issued.Load() != 1 {
			t.Fatalf("issued %d times", issued.Load())
		}
		clock.sleep(24 * time.Hour)
		if r.Check(ctx) == nil {
			t.Error("a certificate that has ended is said to be well")
		}
		time.Sleep(61 * time.Second)
		must(t, r.Check(ctx))
		if issued.Load() != 2 || !clock.Now().Round(0).Before(r.Expires()) {
			t.Errorf("issued %d times, a minute after waking up", issued.Load())
		}
		// While nobody renews it, readiness tells before it ends.
		away.Store(1)
		time.Sleep(20 * time.Hour)
		must(t, r.Check(ctx))
		time.Sleep(2 * time.Hour)
		if r.Check(ctx) == nil {
			t.Error("a certificate that ends in two hours, which nobody renews, is said to be well")
		}
		cancel()
		must(t, <-done)
	})
}

func TestRenewerKeepsTheIdentityOnDisk(t *testing.T) {
	p := newPlane(t)
	file := filepath.Join(t.TempDir(), "node.pem")
	issued := 0
	start := func(node string) *Renewer {
		r, err := NewRenewer(t.Context(), RenewerConfig{Name: "node", File: file, Fits: FitsNode(node), Now: p.clock.Now,
			Issue: func(context.Context, *Issued) (Issued, error) { issued++; return p.authority.IssueNode(node) }})
		must(t, err)
		return r
	}
	first := start("node-001")
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	again := start("node-001")
	if !again.Expires().Equal(first.Expires()) || issued != 1 {
		t.Errorf("issued %d times for one start after another", issued)
	}
	if start("node-002"); issued != 2 {
		t.Error("an identity of another node was taken")
	}
	p.clock.advance(25 * time.Hour)
	if start("node-002"); issued != 3 {
		t.Error("an identity that has ended was taken")
	}
	text, err := os.ReadFile(file)
	must(t, err)
	for i, broken := range [][]byte{text[:len(text)/2], nil, []byte("x"), text[500:]} {
		must(t, os.WriteFile(file, broken, 0o600))
		if start("node-002"); issued != 4+i {
			t.Errorf("broken file %d was taken", i)
		}
	}
	// A folder that cannot be written to does not keep a node from working.
	must(t, os.Remove(file))
	r, err := NewRenewer(t.Context(), RenewerConfig{File: filepath.Join(file, "x"),
		Issue: func(context.Context, *Issued) (Issued, error) { return p.authority.IssueNode("node-001") }})
	if err != nil || len(r.Authorities()) != 1 {
		t.Errorf("%v", err)
	}
}

// Nodes and control planes may start in any order.
func TestRenewerWaitsForAControlPlane(t *testing.T) {
	p := newPlane(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	address := ln.Addr().String()
	must(t, ln.Close())
	enroller := p.enroller(address)
	enroller.Timeout = time.Second
	got := make(chan *Renewer)
	go func() {
		r, err := NewRenewer(t.Context(), RenewerConfig{Name: "node", Issue: enroller.Issue, Now: p.clock.Now})
		if err != nil {
			t.Error(err)
		}
		got <- r
	}()
	select {
	case <-got:
		t.Fatal("an identity from nobody")
	case <-time.After(300 * time.Millisecond):
	}
	s := p.serve(address)
	r := <-got
	client := p.dial([]string{s.address}, func(c *Config) { c.Trust = r.Trust() })
	must(t, second(client.Ping(t.Context())))

	// A refusal is final, and so is the end of the context.
	enroller.Token = func() (JoinToken, error) { return JoinToken{pin: p.authority.Pin()}, nil }
	_, err = NewRenewer(t.Context(), RenewerConfig{Issue: enroller.Issue})
	wantCode(t, err, codeJoinRefused)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err = NewRenewer(ctx, RenewerConfig{Issue: p.enroller("127.0.0.1:1").Issue}); err == nil {
		t.Error("an identity from nobody")
	}
}

// The bridge takes the identities as they come from here.
func TestNodesBridgeWithTheirIdentities(t *testing.T) {
	p := newPlane(t)
	trust := bridge.Trust(p.trust("node-001"))
	cert, err := trust.Certificate()
	must(t, err)
	if cert.Leaf.URIs[0].String() != bridge.IdentityURI("node-001").String() {
		t.Errorf("the bridge expects %v, the certificate says %v", bridge.IdentityURI("node-001"), cert.Leaf.URIs)
	}
}

func TestFileTrust(t *testing.T) {
	p := newPlane(t)
	s := p.serve("")
	dir := t.TempDir()
	i, err := p.authority.IssueNode("node-001")
	must(t, err)
	file := filepath.Join(dir, "all.pem")
	must(t, i.save(file))
	roots := filepath.Join(dir, "ca.pem")
	must(t, os.WriteFile(roots, pem.EncodeToMemory(&pem.Block{Type: blockCertificate, Bytes: i.Authorities[0].Raw}), 0o600))
	client := p.dial([]string{s.address}, func(c *Config) { c.Trust = FileTrust(file, file, roots) })
	must(t, second(client.Ping(t.Context())))
	must(t, os.WriteFile(roots, nil, 0o600))
	if _, err := FileTrust(file, file, roots).Roots(); err == nil {
		t.Error("no authority was taken for one")
	}
	if _, err := FileTrust(roots, file, roots).Certificate(); err == nil {
		t.Error("no certificate was taken for one")
	}
}
