// Package usage shows, with the real programs, that usage is counted right and that
// limits hold: over several forwarders, and through kill -9.
package usage
