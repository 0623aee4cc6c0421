// Package usage shows, with the real programs, that what was used is counted
// right and limits hold: over several forwarders, and through kill -9.
package usage
