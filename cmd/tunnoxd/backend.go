package main

import (
	"context"

	"github.com/tunnox-net/tunnox/broker"
	controlpostgres "github.com/tunnox-net/tunnox/control/postgres"
	"github.com/tunnox-net/tunnox/directory"
	"github.com/tunnox-net/tunnox/eventstore"
	"github.com/tunnox-net/tunnox/projections"
)

// backend is what the parts of a process stand on, in both forms.
type backend struct {
	between
	raw     provable                 // as it is kept, for the feed and for proofs
	store   *eventstore.Personal     // before it: what is about a person is plain
	watched eventstore.Watched       // nil: nobody can take the log back while this process runs
	shared  *controlpostgres.Cluster // nil: there is no other control plane
	away    bool                     // what is between the processes was, when this one started
}

// between is what stands between the processes of a cluster, or between the parts of
// one process: feed, read models, presence. Nothing in it is the truth. Another
// broker is another maker of it (redis.go, embedded.go).
type between struct {
	publisher broker.Publisher
	follower  broker.Follower
	bell      bell // nil: nobody else appends
	rows      projections.Store
	views     views // nil: embedded
	directory presences
	portions  directory.Portions // nil: there is one forwarder, which counts by itself
	clustered bool               // other processes may stand on it too

	reach func(context.Context) error // whether all of it is there; errAway

	// needs are what the API does without when it must: lists and who is where come
	// from here, commands and single reads from the log.
	needs map[string]func(context.Context) error
}

// presences is a directory of clients and of nodes.
type presences interface {
	directory.Directory
	directory.Nodes
}
