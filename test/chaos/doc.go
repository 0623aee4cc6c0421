// Package chaos takes away one part at a time from the running system: Redis, Postgres,
// the control plane, a forwarder; killed, emptied or frozen. The rest must work,
// acknowledged commands must be there, and everything must be as before when the part
// is back.
//
// It has no code of its own: the programs are run by test/programs, the services
// by test/services.
package chaos
