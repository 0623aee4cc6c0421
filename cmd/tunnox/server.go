package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tunnox-net/tunnox/transport"
)

// pinMark stands between a server's address and its pin, where both are one word.
const pinMark = "#"

// parseServers reads what --server was given: HOST:PORT, or HOST:PORT#sha256:...
// with the pin of the server's key behind it. A fault that no try can mend is told
// before the first.
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

// words are what a flag for several things was given, without the blanks that people
// write behind commas. What is empty is none.
func words(given []string) []string {
	some := []string{}
	for _, text := range given {
		some = append(some, strings.Fields(text)...)
	}
	return some
}
