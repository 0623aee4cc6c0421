package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tunnox-net/tunnox/agent"
)

// machine checks whether the server accepts this machine, and what mappings need here.
// Of a server that was named and not joined there is no identity.
func (d *doctor) machine(ctx context.Context, k known, named bool) {
	running := agentRuns(d.state)
	switch {
	case named && !running:
		return
	case k.id.ClientID == 0 && !running:
		d.report.Fail("identity", "run tunnox join CODE, with the code of an invitation", "this machine has not joined a server")
		return
	}
	asked, stop, err := d.agentHere(ctx)
	if stop != nil {
		defer stop()
	}
	if err != nil {
		d.refused(err)
		return
	}
	who := cmp.Or(asked.names[asked.agent.ClientID], "this machine")
	switch {
	case asked.agent.Fenced != nil:
		d.report.Fail("identity", fmt.Sprintf("end one of them; if this machine is a copy, delete %s and join again", filepath.Join(d.state, "client.json")), "another agent has it: %s", asked.agent.Fenced.By)
		return
	case !asked.agent.Online:
		d.report.Fail("identity", "see the log of the agent; start it again if it says nothing", "the agent of this machine runs, and is not connected")
		return
	}
	text := "no agent runs; the server accepts the identity"
	if running {
		text = "the agent is connected"
	}
	d.report.Well("identity", "%s, client %d: %s", who, asked.agent.ClientID, text)
	if !running {
		d.report.Note("agent", "start it with tunnox agent, or let it start with the machine: tunnox service install", "no agent runs on this machine")
	}
	for _, l := range asked.agent.Listeners {
		if l.Error != "" {
			d.report.Fail("listener "+l.Address, "end the program that has the address, or change the mapping", "%s", l.Error)
		}
	}
	for _, m := range asked.mappings {
		d.service(ctx, asked, m)
	}
}

// refused tells why the identity gave no session.
func (d *doctor) refused(err error) {
	do := "if the lines before this one are ok, the server refuses this machine: ask who runs it, or join again with another invitation"
	if _, ended := errors.AsType[*agent.EndedError](err); ended {
		do = "ask who runs the server, or join again with another invitation"
	}
	d.report.Fail("identity", do, "%s", strings.ReplaceAll(err.Error(), "\n", " "))
}

// agentHere asks the agent of this machine, or one that runs here until stop is called.
func (d *doctor) agentHere(ctx context.Context) (k *knowledge, stop func(), err error) {
	f := d.foreground
	f.servers, f.pins = nil, nil // of the identity
	said := &reasons{}
	f.log = slog.New(said)
	r, err := f.runner(ctx)
	if err != nil {
		return nil, nil, err
	}
	stop = func() { _ = r.stop() }
	c := &restClient{base: "http://agent", timeout: machineLimit, http: r.http}
	k = &knowledge{}
	look := time.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	for end := time.Now().Add(d.limit); ; {
		if err = k.ask(ctx, c); err != nil || k.agent.Online || k.agent.Fenced != nil || time.Now().After(end) {
			break
		}
		select {
		case <-r.over: // for ever when another program has the agent
			err = r.stop()
			return k, nil, cmp.Or(err, errAgentGone)
		case <-look.C:
		case <-ctx.Done():
			return k, stop, ctx.Err()
		}
	}
	if err == nil && !k.agent.Online && k.agent.Fenced == nil && r.why != nil {
		if err = r.why(); said.last() != "" {
			err = errors.New(said.last())
		}
	}
	return k, stop, err
}

// reasons is a log that keeps only why there was no session at the latest try.
type reasons struct {
	mu     sync.Mutex
	latest string // guarded by mu
}

func (r *reasons) last() string { r.mu.Lock(); defer r.mu.Unlock(); return r.latest }

// Enabled implements [slog.Handler].
func (r *reasons) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelWarn }

// Handle implements [slog.Handler].
func (r *reasons) Handle(_ context.Context, record slog.Record) error {
	record.Attrs(func(a slog.Attr) bool {
		if a.Key == "reason" {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.latest = a.Value.String()
		}
		return true
	})
	return nil
}

// WithAttrs implements [slog.Handler].
func (r *reasons) WithAttrs([]slog.Attr) slog.Handler { return r }

// WithGroup implements [slog.Handler].
func (r *reasons) WithGroup(string) slog.Handler { return r }

// service tries the service of this machine that a mapping leads to.
func (d *doctor) service(ctx context.Context, k *knowledge, m agent.LocalMapping) {
	if m.TargetClientID != k.agent.ClientID || m.Status != "active" {
		return
	}
	check := "service of " + cmp.Or(m.Name, "mapping "+strconv.FormatInt(m.MappingID, 10))
	kind, path, isPath := strings.Cut(m.Target, ":")
	switch {
	case isPath && kind == "file":
		if _, err := os.Stat(path); err != nil {
			d.report.Fail(check, "make the directory, or change the mapping", "%v", err)
			return
		}
		d.report.Well(check, "%s is there", path)
	case isPath && kind == "unix":
		d.dials(ctx, check, "unix", path)
	case m.TargetHost == "" || m.Protocol == "socks5":
		d.report.Well(check, "whatever its users ask for")
	case m.Protocol == "udp":
		d.report.Well(check, "%s:%d, not tried: UDP does not tell whether somebody listens", m.TargetHost, m.TargetPort)
	default:
		d.dials(ctx, check, "tcp", net.JoinHostPort(m.TargetHost, strconv.Itoa(int(m.TargetPort))))
	}
}

func (d *doctor) dials(ctx context.Context, check, network, address string) {
	conn, err := (&net.Dialer{Timeout: d.limit}).DialContext(ctx, network, address)
	if err != nil {
		d.report.Fail(check, "start the service there, or change the mapping that leads to it", "nothing answers at %s: %v", address, err)
		return
	}
	_ = conn.Close()
	d.report.Well(check, "%s answers", address)
}
