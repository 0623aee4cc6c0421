//go:build race

package programs

// Race reports that tests run under the race detector, and so do the programs
// they start. Limits of time do not hold then.
const Race = true
