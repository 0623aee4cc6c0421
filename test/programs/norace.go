//go:build !race

package programs

// Race reports whether tests run under the race detector, and with them the
// programs they start. Limits of time do not hold then.
const Race = false
