// Package cluster tests what only several nodes have: control plane and
// forwarders as processes of their own, each with a loopback address, over a real
// Postgres and Redis, with the source agent at one forwarder and the target agent
// at another. Package test/flow runs its own story over the same cluster.
package cluster
