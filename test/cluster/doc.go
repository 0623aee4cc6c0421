// Package cluster tests what only several nodes have: control planes and
// forwarders as processes of their own, each with a loopback address, over a real
// Postgres and Redis, with the source agent at one forwarder and the target agent
// at another. Package test/flow runs its own story over the same cluster.
//
// Tests that measure run alone, print their figures and fail only for what is
// broken; those that mostly wait run beside each other after them. Two of them have
// a longer form: TUNNOX_TEST_AWAY=30s takes services away and freezes processes for
// so long, TUNNOX_TEST_SESSIONS=10000 connects so many agents to one forwarder.
package cluster
