package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/tunnox-net/tunnox/bridge"
	"github.com/tunnox-net/tunnox/broker"
	"github.com/tunnox-net/tunnox/control"
	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/forwarder"
	"github.com/tunnox-net/tunnox/transport"
)

// nodeIdentity gets the certificate with which a node proves its identity in the
// cluster, after its id is known. It is nil in a process without a cluster.
type nodeIdentity func(ctx context.Context, node string) (membership, error)

// ownAuthority is the nodeIdentity of the process that has the authority.
func (p *process) ownAuthority(state *control.Server) nodeIdentity {
	return func(ctx context.Context, node string) (membership, error) {
		trust, err := p.renewed(ctx, node, func(ctx context.Context, current *control.Issued) (control.Issued, error) {
			return state.OwnNode(ctx, node, current)
		})
		return membership{Trust: trust}, err
	}
}

// membership is a node with its identity in the cluster.
type membership struct {
	control.Trust
	enroller *control.Enroller // nil: others see to its certificates
}

// joins gives the nodeIdentity of a forwarder: the control plane gives it certificates,
// the first one in exchange for the join token, or the operator provides files.
func (p *process) joins() (nodeIdentity, error) {
	cfg := p.cfg
	switch files := cfg.NodeCert != "" || cfg.NodeKey != "" || cfg.ClusterCA != "" && cfg.Control != ""; {
	case files && (cfg.NodeCert == "" || cfg.NodeKey == "" || cfg.ClusterCA == ""):
		return nil, usageError{errors.New("--node-cert, --node-key and --cluster-ca must be given together")}
	case files:
		trust := control.FileTrust(cfg.NodeCert, cfg.NodeKey, cfg.ClusterCA)
		return func(_ context.Context, node string) (membership, error) {
			cert, err := trust.Certificate()
			if err != nil {
				return membership{}, err
			}
			if !control.FitsNode(node)(cert.Leaf) {
				return membership{}, fmt.Errorf("--node-cert %s does not name %s, which is this node", cfg.NodeCert, bridge.IdentityURI(node))
			}
			_, err = trust.Roots()
			return membership{Trust: trust}, err
		}, nil
	case cfg.Control == "" && cfg.JoinTokenFile != "":
		return nil, usageError{errors.New("--join-token-file needs --control")}
	case cfg.Control == "":
		return nil, nil
	case cfg.JoinTokenFile == "":
		return nil, usageError{errors.New("--control needs --join-token-file (DATA/join-token of the control plane), or --node-cert, --node-key and --cluster-ca")}
	}
	return func(ctx context.Context, node string) (membership, error) {
		enroller := &control.Enroller{Node: node, Addresses: strings.Split(cfg.Control, ","),
			Names: agentsNames(cfg.AdvertiseAgents, p.sockets.agents.Addr()),
			Token: func() (control.JoinToken, error) {
				token, err := control.LoadJoinToken(cfg.JoinTokenFile)
				if errors.Is(err, fs.ErrNotExist) {
					err = fmt.Errorf("%w: %w: the control plane makes it at its first start", control.ErrUnavailable, err)
				}
				return token, err
			}}
		trust, err := p.renewed(ctx, node, enroller.Issue)
		return membership{trust, enroller}, err
	}, nil
}

// renewed keeps a node's certificate valid as long as the process lives.
func (p *process) renewed(ctx context.Context, node string, issue func(context.Context, *control.Issued) (control.Issued, error)) (control.Trust, error) {
	renewer, err := control.NewRenewer(ctx, control.RenewerConfig{Issue: issue, File: p.dir.file("node.pem"), Fits: control.FitsNode(node),
		Name: "node", Log: p.log.With("part", "certificate"), Registry: p.registry})
	if err != nil {
		return control.Trust{}, err
	}
	p.alarms.add(alarmCertificates, renewer.Check)
	p.run("node certificate", renewer.Run)
	return renewer.Trust(), nil
}

// dialControl connects a forwarder to the control planes.
func (p *process) dialControl(trust control.Trust) (*control.Client, *control.ClientMetrics, error) {
	metrics := control.NewClientMetrics()
	p.registry.MustRegister(metrics)
	client, err := control.Dial(control.Config{Addresses: strings.Split(p.cfg.Control, ","), Trust: trust, Metrics: metrics})
	if err != nil {
		return nil, nil, err
	}
	p.atEnd("control plane's client", func(context.Context) error { return client.Close() })
	return client, metrics, nil
}

// lookThrough adds the memory and the control plane to the places where a forwarder
// looks clients up. The feed passes the lookup on its way to the forwarder and keeps
// the memory valid. Without a live feed nothing is served from memory if another place
// can answer.
func (p *process) lookThrough(client *control.Client, metrics *control.ClientMetrics, rows keptViews, feed broker.Follower) (forwarder.Lookup, broker.Follower, error) {
	lookup, err := control.NewLookup(control.LookupConfig{ReadModel: rows, Remote: client, MaxAge: time.Millisecond,
		Logger: p.log.With("part", "lookup"), Metrics: metrics})
	if err != nil {
		return nil, nil, err
	}
	p.atEnd("lookup", func(context.Context) error { return lookup.Close() })
	return lookup, witness{feed, lookup}, nil
}

// witness is a feed that a lookup sees before the forwarder does, so that a lookup
// knows every record that the forwarder has applied.
type witness struct {
	broker.Follower
	lookup *control.Lookup
}

// Follow implements broker.Follower.
func (w witness) Follow(ctx context.Context, after domain.Position) (broker.Subscription, error) {
	s, err := w.Follower.Follow(ctx, after)
	if err != nil {
		return nil, err
	}
	return witnessed{s, w.lookup}, nil
}

type witnessed struct {
	broker.Subscription
	lookup *control.Lookup
}

// Next implements broker.Subscription.
func (w witnessed) Next(ctx context.Context) (broker.Entry, error) {
	e, err := w.Subscription.Next(ctx)
	switch {
	case errors.Is(err, broker.ErrForked):
		w.lookup.Forget()
	case err != nil:
		w.lookup.Lost()
	case e.Record != nil:
		w.lookup.Observe(*e.Record)
	default:
		w.lookup.Reached(e.Position)
	}
	return e, err
}

// peers opens streams to other forwarders.
type peers struct{ pool *bridge.Pool }

// Open implements forwarder.Peers.
func (p peers) Open(ctx context.Context, node, address string) (transport.Stream, error) {
	return p.pool.Open(ctx, bridge.Peer{Node: node, Address: address})
}

// openPool makes the pool of bridges to other forwarders.
func (p *process) openPool(trust control.Trust, refuse func(string) error) (*bridge.Pool, error) {
	pool, err := bridge.NewPool(bridge.PoolConfig{Trust: bridge.Trust(trust), IdleClose: p.cfg.BridgeIdle, Refuse: refuse,
		Log: p.log.With("part", "bridge")})
	if err != nil {
		return nil, err
	}
	p.registry.MustRegister(pool)
	p.atEnd("bridges to others", func(context.Context) error { return pool.Close() })
	return pool, nil
}

// serveBridge accepts streams from other forwarders.
func (p *process) serveBridge(trust control.Trust, refuse func(string) error, f *forwarder.Forwarder) (*bridge.Server, error) {
	server, err := bridge.NewServer(bridge.ServerConfig{Trust: bridge.Trust(trust), Refuse: refuse, Log: p.log.With("part", "bridge"),
		Handle: func(_ context.Context, from bridge.Identity, stream transport.Stream) { f.Deliver(from.Node, stream) }})
	if err != nil {
		return nil, err
	}
	p.registry.MustRegister(server)
	p.run("bridge", func(context.Context) error { return server.Serve(p.sockets.bridge) })
	p.atEnd("bridges from others", func(context.Context) error { server.Stop(); return nil })
	return server, nil
}
