// Package hosts tests HTTP at public hosts with the real programs: a visitor asks a
// forwarder, and the service is behind an agent at the same forwarder or at another.
package hosts
