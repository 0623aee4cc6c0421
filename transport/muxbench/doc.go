// Package muxbench measures the multiplexer of package transport beside the
// libraries that could stand in its place, over TLS on loopback:
//
//	go test -run XXX -bench . ./transport/muxbench
//
// Its duty is the figures behind the choice, and that what is compared passes the
// same suite. Its limit: one session, both ends in one process; what a tunnel of
// three processes reaches is measured in package test/bench.
package muxbench
