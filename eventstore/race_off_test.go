//go:build !race

package eventstore_test

// raceEnabled says that the race detector slows everything down.
const raceEnabled = false
