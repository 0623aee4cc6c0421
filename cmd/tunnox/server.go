package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tunnox-net/tunnox/transport"
)

// pinMark separates a server's address from its pin, where both are one word.
const pinMark = "#"

// parseServers reads the values of --server: HOST:PORT, or HOST:PORT#sha256:... with
// the pin of the server's key. A fault in them is reported before the first connection.
func parseServers(given []string) (addresses []string, pins []transport.Pin, err error) {
	var faults []error
	for _, text := range words(given) {
		address, fingerprint, pinned := strings.Cut(text, pinMark)
		if _, err := carriers.Check(address); err != nil {
			faults = append(faults, fmt.Errorf("--server: %w", err))
			continue
		}
		addresses = append(addresses, address)
		if !pinned {
			continue
		}
		pin, err := transport.ParsePin(fingerprint)
		switch {
		case err != nil:
			faults = append(faults, fmt.Errorf("--server %q: %w", text, err))
		case !slices.Contains(pins, pin):
			pins = append(pins, pin)
		}
	}
	return addresses, pins, errors.Join(faults...)
}

// words splits the values of a flag for several things, and removes the blanks that
// people write after commas. Empty words are dropped.
func words(given []string) []string {
	some := []string{}
	for _, text := range given {
		some = append(some, strings.Fields(text)...)
	}
	return some
}
