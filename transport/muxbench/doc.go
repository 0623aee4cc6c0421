// Package muxbench measures the multiplexer of package transport beside the
// libraries that could stand in its place, over TLS on loopback:
//
//	cd transport/muxbench && go test -run '^$' -bench .
//
// Its duty is the figures behind the choice, taken with candidates that carry
// bytes rightly. libp2p's yamux passes nearly all of transporttest (a write that
// races with its deadline gives an error that is no net.Error); smux cannot reset
// a stream, and is measured only. Its limit: one session, both ends in one process; what a tunnel of
// three processes reaches is measured in package test/bench.
package muxbench
