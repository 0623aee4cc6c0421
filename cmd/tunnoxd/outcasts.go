package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/tunnox-net/tunnox/bridge"
	"github.com/tunnox-net/tunnox/control"
	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/wait"
)

const (
	// outcastsEvery is how often a forwarder asks whether the nodes that it has bridges
	// with were revoked.
	outcastsEvery = 500 * time.Millisecond
	// outcastsWait bounds the question about a node that makes a connection. Bridges work
	// while no control plane answers, so then the last answer holds.
	outcastsWait = 2 * time.Second
)

// outcasts keeps bridges from and to nodes that were revoked.
type outcasts struct {
	log    *slog.Logger
	dir    *dataDir
	pool   *bridge.Pool
	server *bridge.Server

	mu      sync.Mutex
	ask     func(ctx context.Context, nodes ...string) (revoked []string, err error) // guarded by mu; nil: nobody can be asked
	revoked map[string]bool                                                          // guarded by mu
}

var errRevoked = errors.New("the node was revoked")

// follow says whom to ask.
func (o *outcasts) follow(ask func(context.Context, ...string) ([]string, error)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ask = ask
}

// refuse is asked for every bridge that begins.
func (o *outcasts) refuse(node string) error {
	ctx, cancel := context.WithTimeout(context.Background(), outcastsWait)
	defer cancel()
	if err := o.look(ctx, node); err != nil {
		o.log.Debug("whether a peer was revoked cannot be asked now", "peer", node, "error", err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.revoked[node] {
		return fmt.Errorf("%s: %w", node, errRevoked)
	}
	return nil
}

// look asks about nodes and remembers those that were revoked, which they stay.
func (o *outcasts) look(ctx context.Context, nodes ...string) error {
	o.mu.Lock()
	ask := o.ask
	o.mu.Unlock()
	if ask == nil {
		return nil
	}
	revoked, err := ask(ctx, nodes...)
	if err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, node := range revoked {
		if o.revoked == nil {
			o.revoked = map[string]bool{}
		}
		o.revoked[node] = true
	}
	return nil
}

// run ends the bridges of nodes that were revoked, and this process when its own node
// was.
func (o *outcasts) run(ctx context.Context) error {
	for wait.For(ctx, outcastsEvery) {
		var nodes []string
		for _, s := range o.pool.Stats() {
			nodes = append(nodes, s.Node)
		}
		for _, s := range o.server.Stats() {
			nodes = append(nodes, s.Node)
		}
		err := o.look(ctx, nodes...)
		if domain.CodeOf(err) == domain.CodeNodeRevoked {
			return errors.Join(fmt.Errorf("this node ends: %w", err), o.dir.markRevoked())
		}
		o.mu.Lock()
		var gone []string
		for _, node := range nodes {
			if o.revoked[node] {
				gone = append(gone, node)
			}
		}
		o.mu.Unlock()
		for _, node := range gone {
			o.log.Warn("ending the bridges of a node that was revoked", "peer", node)
			o.pool.Expel(node)
			o.server.Expel(node)
		}
	}
	return nil
}

// certifiedNames gets certificates for the names at which agents reach this node. Names
// that are new it registers first, with its join token. Without one it goes on with the
// names that it has.
func (p *process) certifiedNames(client *control.Client, member membership) func(context.Context, ...string) (control.Issued, error) {
	return func(ctx context.Context, names ...string) (control.Issued, error) {
		issued, err := client.Certify(ctx, names...)
		refusal, ok := errors.AsType[*domain.Error](err)
		if !ok || refusal.Code != domain.CodeNodeName {
			return issued, err
		}
		if member.enroller != nil {
			current, err := member.Certificate()
			if err == nil {
				_, err = member.enroller.Register(ctx, control.Issued{Certificate: *current})
			}
			if err == nil {
				return client.Certify(ctx, names...)
			}
			p.log.Warn("the new names of this node cannot be registered", "error", err)
		}
		var registered []string
		for _, name := range names {
			if !hasFault(refusal, name) {
				registered = append(registered, name)
			}
		}
		if len(registered) == 0 {
			return issued, err
		}
		p.log.Warn("agents can verify this node by its registered names only", "refused", refusal.Faults, "names", registered)
		return client.Certify(ctx, registered...)
	}
}

func hasFault(e *domain.Error, field string) bool {
	for _, f := range e.Faults {
		if f.Field == field {
			return true
		}
	}
	return false
}
