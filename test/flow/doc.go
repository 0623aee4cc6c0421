// Package flow tests the whole: real programs, real sockets, a real Postgres and Redis,
// from a REST command to a byte that arrives at a service behind an agent.
//
// Its duty is the behaviour that users see, issue by issue. Every test runs in both
// forms, embedded and over Postgres and Redis. The package contains tests only:
// test/programs runs the programs.
package flow
