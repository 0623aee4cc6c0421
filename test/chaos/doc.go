// Package chaos takes away what the whole stands on, one thing at a time, while
// it works: Redis, Postgres, the control plane, a forwarder; killed, emptied or
// frozen. What works must keep working, what was acknowledged must be there, and
// all must be as before when the thing is back.
//
// It has no code of its own: the programs are run by test/programs, the services
// by test/services.
package chaos
