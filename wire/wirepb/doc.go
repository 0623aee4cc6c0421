// Package wirepb holds the generated messages of an agent's session; wire.proto
// is their source and ../SPEC.md says how they are used.
package wirepb
