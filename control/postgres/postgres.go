// Package postgres stores the shared data of the control planes of a cluster beside the
// log, in the log's database: secrets, leases, and the list of control planes.
//
// Its duty: [Vault] gives all of them one authority and one join token, encrypted with
// a key that is in no database. [Session.Hold] lets one of them do work at a time, and
// another one within seconds after that one is gone.
//
// Its limit: a lease says who should work, not who may write. A process that was frozen
// wakes up and believes that it still has its lease. So the destinations of such work
// must refuse late writes themselves: the feed knows its records by position, the read
// models by their checkpoint.
package postgres

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tunnox-net/tunnox/control"
	"github.com/tunnox-net/tunnox/control/postgres/internal/queries"
	"github.com/tunnox-net/tunnox/primary"
)

// poolSize is enough for the renewals of leases, which are short, and for an occasional
// read. The pool is separate, so that a log under load cannot cost a lease.
const poolSize = 3

var sessionSettings = map[string]string{
	"application_name":  "tunnox cluster",
	"lock_timeout":      "1s",
	"statement_timeout": "2s",
}

// Cluster is the shared data of the control planes of a cluster.
type Cluster struct {
	pool *pgxpool.Pool
	q    *queries.Queries
}

// Open connects to the database of the log, which must have the present schema.
func Open(ctx context.Context, url string) (*Cluster, error) {
	config, err := primary.Config(url)
	if err != nil {
		return nil, fmt.Errorf("open the cluster's database: %w", err)
	}
	for name, value := range sessionSettings {
		config.ConnConfig.RuntimeParams[name] = value
	}
	config.MaxConns = poolSize
	pool, err := primary.Open(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("open the cluster's database: %w", err)
	}
	return &Cluster{pool: pool, q: queries.New(pool)}, nil
}

// Close ends the connections.
func (c *Cluster) Close() { c.pool.Close() }

// ControlPlane is one of the control planes, as others see it.
type ControlPlane struct {
	ID          string
	API         string // address of the REST API
	State       string // address of the State service, "" = it has none
	Version     string
	Since, Seen time.Time
	Leases      []Held // the work that it does for all of them
}

// Held is a lease that a control plane has.
type Held struct {
	Name  string
	Token int64
}

// seenFor is how long a silent control plane still counts as running.
const seenFor = 15 * time.Second

// ControlPlanes gives the running control planes, by id.
func (c *Cluster) ControlPlanes(ctx context.Context) ([]ControlPlane, error) {
	rows, err := c.q.ControlPlanes(ctx, seenFor.Seconds())
	if err != nil {
		return nil, fmt.Errorf("list control planes: %w", err)
	}
	leases, err := c.q.Leases(ctx)
	if err != nil {
		return nil, fmt.Errorf("list leases: %w", err)
	}
	all := make([]ControlPlane, len(rows))
	for i, r := range rows {
		all[i] = ControlPlane{ID: r.ID, API: r.Api, State: r.State, Version: r.Version, Since: r.Since, Seen: r.Seen}
		for _, l := range leases {
			if l.Holder == r.ID {
				all[i].Leases = append(all[i].Leases, Held{Name: l.Name, Token: l.Token})
			}
		}
	}
	return all, nil
}

// Session is one run of a control plane: its leases end with it.
type Session struct {
	cluster *Cluster
	self    ControlPlane
	nonce   string
	log     *slog.Logger
	metrics *Metrics
}

// Begin makes a session of the control plane. A restarted control plane with the same
// id has another session, which does not own the leases of the one before.
func (c *Cluster) Begin(self ControlPlane, metrics *Metrics, log *slog.Logger) *Session {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if metrics == nil {
		metrics = NewMetrics()
	}
	return &Session{cluster: c, self: self, nonce: rand.Text(), log: log, metrics: metrics}
}

// Show makes this control plane visible to others, until ctx ends.
func (s *Session) Show(ctx context.Context) error {
	tick := time.NewTicker(seenFor / 3)
	defer tick.Stop()
	for ok := true; ; {
		err := s.cluster.q.ShowControlPlane(ctx, queries.ShowControlPlaneParams{ID: s.self.ID, Session: s.nonce,
			Api: s.self.API, State: s.self.State, Version: s.self.Version})
		if err != nil && ctx.Err() == nil && ok {
			s.log.Warn("others cannot see this control plane, trying again", "error", err)
		}
		ok = err == nil
		select {
		case <-ctx.Done():
			return s.hide()
		case <-tick.C:
		}
	}
}

// endLimit bounds the last write, when the database may be away.
const endLimit = time.Second

func (s *Session) hide() error {
	ctx, cancel := context.WithTimeout(context.Background(), endLimit)
	defer cancel()
	if err := s.cluster.q.HideControlPlane(ctx, queries.HideControlPlaneParams{ID: s.self.ID, Session: s.nonce}); err != nil {
		s.log.Warn("cannot report that this control plane ends; others will notice it", "error", err)
	}
	return nil
}

var _ control.Vault = (*Vault)(nil)
