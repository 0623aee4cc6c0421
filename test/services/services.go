// Package services starts private servers for tests. They are real servers, because a
// fake database only confirms what its author believes.
//
// Its duty: [Postgres] and [Redis] give a test an empty database of its own, on a
// server that is started once for each test binary and ended with it, also when the
// binary is killed. Nothing needs to run before; the programs of the Debian packages
// are enough, as root or not. TUNNOX_TEST_POSTGRES and TUNNOX_TEST_REDIS name servers
// to use instead.
//
// Its limit: it is for tests. Servers run without flushing to disk unless a
// test asks for durability.
package services

import (
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"

	"go.uber.org/goleak"
)

var (
	stopsMu sync.Mutex
	stops   []func() // guarded by stopsMu; run newest first by Main
)

// atExit registers what Main runs after the tests, newest first. Every file of this
// package that starts something shared registers its end here.
func atExit(stop func()) {
	stopsMu.Lock()
	defer stopsMu.Unlock()
	stops = append(stops, stop)
}

// AtExit is atExit for packages that keep something for a whole test binary.
func AtExit(stop func()) { atExit(stop) }

// Main is the body of TestMain of every package that uses this one: it runs the
// tests, stops what they started, checks that no goroutine is left, and exits.
func Main(m *testing.M, options ...goleak.Option) {
	code := m.Run()
	stopAll()
	// Only after success: a failed test leaves goroutines, and their list would hide
	// the failure.
	if code == 0 {
		if err := goleak.Find(options...); err != nil {
			fmt.Fprintln(os.Stderr, "services: goroutines left after the tests:", err)
			code = 1
		}
	}
	os.Exit(code)
}

func stopAll() {
	stopsMu.Lock()
	list := slices.Clone(stops)
	stops = nil
	stopsMu.Unlock()
	for _, stop := range slices.Backward(list) {
		stop()
	}
}
