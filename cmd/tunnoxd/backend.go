package main

import (
	"context"

	"github.com/redis/go-redis/v9"

	"github.com/tunnox-net/tunnox/attest"
	"github.com/tunnox-net/tunnox/broker"
	controlpostgres "github.com/tunnox-net/tunnox/control/postgres"
	"github.com/tunnox-net/tunnox/directory"
	"github.com/tunnox-net/tunnox/eventstore"
	"github.com/tunnox-net/tunnox/projections"
)

// backend is the set of stores that the parts of a process use, in both forms.
type backend struct {
	between
	raw     provable                 // as stored, for the feed and for proofs
	store   *eventstore.Personal     // the layer above raw: personal data is plain
	watched eventstore.Watched       // nil: nobody can roll the log back while this process runs
	shared  *controlpostgres.Cluster // nil: there is no other control plane
	key     apiKey                   // the API key, which opens the cluster's secrets; set in a cluster
	record  *attest.Key              // signs read models and feed; nil: embedded
	away    bool                     // the services between the processes were away when this one started
}

// between is what connects the processes of a cluster, or the parts of one process:
// feed, read models, presence. Nothing in it is the truth. Another broker needs another
// function that makes it (redis.go, embedded.go).
type between struct {
	publisher broker.Publisher
	follower  broker.Follower
	bell      bell // nil: nobody else appends
	rows      projections.Store
	views     views    // nil: embedded
	signers   *signers // nil: embedded
	directory presences
	portions  directory.Portions // nil: there is only one forwarder, which counts alone
	clustered bool               // other processes may use it too

	redis *redis.Client // nil: embedded

	reach func(context.Context) error // reports whether all of it can be reached; errAway

	// needs are checks of services without which the API still works partly: lists and
	// presence come from here, commands and single reads from the log.
	needs map[string]func(context.Context) error
}

// presences is a directory of clients and of nodes.
type presences interface {
	directory.Directory
	directory.Nodes
}
