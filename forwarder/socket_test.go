package forwarder_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/tunnox-net/tunnox/forwarder"
)

func newEmpty() (*forwarder.Forwarder, error) { return forwarder.New(forwarder.Config{}) }

// socketOf gives the kernel's number of the socket that listens on a loopback
// address: it changes when the listener is opened again. It is "" when nothing
// listens. Looking does not disturb: trying to bind the address would.
func socketOf(t testing.TB, address string) string {
	t.Helper()
	_, port := split(t, address)
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		t.Fatalf("this test reads Linux's socket table: %v", err)
	}
	for line := range strings.Lines(string(table)) {
		f := strings.Fields(line)
		if len(f) > 9 && f[3] == "0A" && strings.HasSuffix(f[1], fmt.Sprintf(":%04X", port)) {
			return f[9]
		}
	}
	return ""
}
