package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/tunnox-net/tunnox/control"
	"github.com/tunnox-net/tunnox/directory"
	"github.com/tunnox-net/tunnox/domain"
)

// defaultState is the default address where a control plane without forwarder serves
// forwarders.
const defaultState = "127.0.0.1:50051"

// startState starts the State service, and saves the join token where people and
// scripts find it.
func (p *process) startState(ctx context.Context, b *backend, cp *controlPlane, key apiKey) (*control.Authority, *control.Server, error) {
	metrics := control.NewServerMetrics()
	p.registry.MustRegister(metrics)
	vault := p.vault(b.shared, key)
	authority, err := control.OpenAuthority(ctx, vault, control.AuthorityOptions{Metrics: metrics})
	if err != nil {
		return nil, nil, otherKey(err, key)
	}
	tokens, err := control.OpenJoinTokens(ctx, vault, authority)
	if err != nil {
		return nil, nil, otherKey(err, key)
	}
	token, err := tokens.Current(ctx)
	if err != nil {
		return nil, nil, err
	}
	if err := token.Save(p.dir.file("join-token")); err != nil {
		return nil, nil, fmt.Errorf("save join token: %w", err)
	}
	log := p.log.With("part", "state")
	server, err := control.NewServer(control.ServerConfig{
		Authority: authority, JoinTokens: tokens, Log: b.store, Executor: cp.commands, Views: cp.reader, Usage: cp.usage,
		Head: func(ctx context.Context) (domain.Position, error) {
			head, err := b.store.Head(ctx)
			return head.Position, err
		},
		Connected: func(ctx context.Context, clientID int64, node string) (bool, error) {
			found, err := b.directory.Lookup(ctx, clientID)
			return err == nil && slices.ContainsFunc(found[0].Sessions, func(s directory.Session) bool { return s.Node == node }), err
		},
		Keep:            b.views.Keep,
		Proofs:          cp.proofs,
		Public:          cp.public,
		Certificates:    cp.certificates,
		Logins:          cp.logins,
		AnonymousLimits: limitsOf(p.cfg.plans, anonymousPlan), RefuseAnonymous: p.cfg.Anonymous == "off",
		Logger: log, Metrics: metrics,
	})
	if err != nil {
		return nil, nil, err
	}
	p.run("state service", func(context.Context) error { return server.Serve(p.sockets.state) })
	p.atEnd("state service", func(ctx context.Context) error {
		if err := server.Drain(ctx); err != nil {
			log.Warn("ending with calls open", "reason", err) // their forwarders ask another control plane
		}
		return nil
	})
	return authority, server, nil
}
