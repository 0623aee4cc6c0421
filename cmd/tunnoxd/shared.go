package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/tunnox-net/tunnox/control"
	controlpostgres "github.com/tunnox-net/tunnox/control/postgres"
	"github.com/tunnox-net/tunnox/domain"
)

// Work that one control plane at a time does for all.
const (
	leaseRelay     = "relay"
	leaseProjector = "projector"
	leaseWebhooks  = "webhooks"
)

// openShared connects to the shared data of the control planes of a cluster.
func (p *process) openShared(ctx context.Context) (*controlpostgres.Cluster, error) {
	shared, err := controlpostgres.Open(ctx, p.cfg.Postgres)
	if err != nil {
		return nil, err
	}
	p.atEnd("cluster's database", func(context.Context) error { shared.Close(); return nil })
	return shared, nil
}

// clusterKey gives the API key of a control plane in a cluster. All control planes have
// the same key, and a control plane without a key does not make another one.
func (p *process) clusterKey(ctx context.Context, shared *controlpostgres.Cluster) (apiKey, error) {
	key, ok, err := readAPIKey(p.dir, p.cfg.apiKey)
	if err != nil || ok {
		return key, err
	}
	others, err := shared.HasSecrets(ctx)
	if err != nil {
		return apiKey{}, err
	}
	path := p.dir.file("api-key")
	if others {
		return apiKey{}, fmt.Errorf("this database belongs to a cluster that has an API key, but there is no key in --data %s: copy api-key from the --data of another control plane to %s (mode 0600), or set TUNNOXD_API_KEY",
			p.dir.path, path)
	}
	return createAPIKey(path)
}

// vault opens the cluster's secrets with the API key.
func (p *process) vault(shared *controlpostgres.Cluster, key apiKey) control.Vault {
	return vaultOf(shared, key, p.cfg.apiKeyBefore)
}

func vaultOf(shared *controlpostgres.Cluster, key apiKey, before string) control.Vault {
	var keys [][]byte
	if before != "" {
		keys = append(keys, []byte(before))
	}
	return shared.Vault([]byte(key.secret), keys...)
}

// otherKey adds what to do about secrets that the API key does not open.
func otherKey(err error, key apiKey) error {
	if !errors.Is(err, controlpostgres.ErrSealed) {
		return err
	}
	return fmt.Errorf("%w\n  every control plane of a cluster needs the same API key, but the key in %s is another one: copy api-key from the --data of another control plane, or set TUNNOXD_API_KEY\n  after a change of the key, set TUNNOXD_API_KEY_BEFORE to the old key until every control plane has the new one",
		err, key.source)
}

// beginSession makes this control plane visible in the cluster, for the leases and for
// GET /nodes.
func (p *process) beginSession(shared *controlpostgres.Cluster) (*controlpostgres.Session, error) {
	id, err := p.controlID()
	if err != nil {
		return nil, err
	}
	metrics := controlpostgres.NewMetrics()
	p.registry.MustRegister(metrics)
	self := controlpostgres.ControlPlane{ID: id, Version: shortVersion(), API: reachable("", p.sockets.api.Addr())}
	if p.sockets.state != nil {
		self.State = reachable("", p.sockets.state.Addr())
	}
	session := shared.Begin(self, metrics, p.log.With("part", "lease", "control", id))
	p.run("control plane's record", session.Show)
	return session, nil
}

// controlID names a control plane. The name is the same after a restart with the same
// data.
func (p *process) controlID() (string, error) {
	key, err := p.dir.nodeKey()
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte("control plane " + key))
	return "control-" + hex.EncodeToString(sum[:4]), nil
}

// runAlone runs work that one control plane at a time does, if there may be several. A
// late write of a frozen one is refused by its destination: by the feed because of its
// position, by the read models because of their checkpoint.
func (p *process) runAlone(session *controlpostgres.Session, lease string, work func(context.Context) error) {
	if session == nil {
		p.run(lease, work)
		return
	}
	p.run(lease, func(ctx context.Context) error { return session.Hold(ctx, lease, work) })
}

// complete waits until the read models show the log as it was at the start, whichever
// process builds them.
func (cp *controlPlane) complete(ctx context.Context) error {
	if cp.session == nil {
		return cp.projector.Ready(ctx)
	}
	var head domain.Position
	own := make(chan error, 1)
	ready, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { own <- cp.projector.Ready(ready) }()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for known := false; ; {
		if !known {
			head, known = cp.end(ctx)
		}
		if known && cp.shown(ctx, head) {
			return nil
		}
		select {
		case err := <-own:
			return err
		case <-tick.C:
		}
	}
}

// end gives the end of the log, if the log can be asked now.
func (cp *controlPlane) end(ctx context.Context) (domain.Position, bool) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	head, err := cp.store.Head(ctx)
	return head.Position, err == nil
}

// shown reports whether the read models exist and have reached a position.
func (cp *controlPlane) shown(ctx context.Context, position domain.Position) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	at, err := cp.rows.Checkpoint(ctx)
	if err != nil || at.Position < position {
		return false
	}
	_, _, err = cp.reader.Users(ctx, 0, 1) // read models of an empty log are at 0, and so are missing ones
	return err == nil
}
