// Package flow tests the whole: real programs, real sockets, a real Postgres and
// Redis, from a REST command to a byte that arrives at a service behind an agent.
//
// Its duty is issue by issue what a user sees working; every test runs in both
// forms, embedded and over Postgres and Redis. It has no code of its own: the
// programs are run by test/programs.
package flow
