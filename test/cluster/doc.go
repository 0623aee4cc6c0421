// Package cluster tests behaviour that needs several nodes. Control planes and
// forwarders are processes of their own, each with a loopback address, over a real
// Postgres and Redis; the source agent is at one forwarder and the target agent at
// another. Package test/flow runs its own story over the same cluster.
//
// Tests that measure run alone, print their figures and fail only if something is
// broken. Tests that mostly wait run at the same time after them. Two of them have a
// longer form: TUNNOX_TEST_AWAY=30s takes services away and freezes processes for this
// time, TUNNOX_TEST_SESSIONS=10000 connects this many agents to one forwarder.
package cluster
