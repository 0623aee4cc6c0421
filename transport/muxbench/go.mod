// What is measured beside ours is no part of the product, so that this is a
// module of its own.
module github.com/tunnox-net/tunnox/transport/muxbench

go 1.26.0

require (
	github.com/libp2p/go-yamux/v5 v5.1.0
	github.com/tunnox-net/tunnox v0.0.0
	github.com/xtaci/smux v1.5.58
	go.uber.org/goleak v1.3.0
)

require (
	github.com/libp2p/go-buffer-pool v0.0.2 // indirect
	golang.org/x/sys v0.49.0 // indirect
)

replace github.com/tunnox-net/tunnox => ../..
