// Package bridge is the link between forwarders: pooled gRPC connections under mTLS.
// Every forwarded connection is one bidirectional stream, with the same contract as any
// other [transport.Stream].
//
// Its duty is to carry bytes between two nodes that have proved their identity. Its
// limits: it does not know what the bytes mean. The forwarder writes an Open into a
// stream and reads the answer, as on an agent's session. The bridge does not know where
// a client is, and it does not forward further. It issues no certificates; its caller
// gives it a [Trust].
//
// # Sides
//
// A [Pool] opens streams to peers; a [Server] accepts them. The pool and the server of
// one node are independent. So two nodes that open streams to each other have a
// connection in each direction.
//
// # A stream
//
// A stream is one RPC, bridgepb/bridge.proto. Its identity is the HTTP/2 stream id,
// which only rises and ends with its connection. A half-close, a close and a reset are
// frames. A reset by the opener is also a cancel of the RPC.
//
// gRPC has flow control of its own, but it does not suffice for the contract of a
// stream. A SendMsg on a blocked stream cannot be abandoned at a deadline. A server
// cannot send anything, not even a reset, past data that the peer's window holds back.
// So a stream has a window above gRPC's. A writer sends at most what the reader's
// window of 512 KiB leaves. The receiving side always accepts received bytes at once
// and keeps them until they are read. It grants the space again at each quarter of the
// window. gRPC's windows are larger than that and never close, so grants, ends and
// resets always get through.
//
// # Memory
//
// A stream whose reader does not read holds at most its window of 512 KiB. Up to 176
// KiB of that can be bytes that gRPC has not written yet at the sender, whatever the
// size of the writes. Measured with all overhead: 660 KiB with large writes, 610 KiB
// with tiny ones. It blocks no other stream. An idle stream holds no buffers: it costs
// some 14 KiB of heap and four goroutines, both ends together. A window of 512 KiB
// gives 0.5 GB/s at a round trip of 1 ms and 50 MB/s at 10 ms on one stream. A
// connection costs 68 KiB for each direction at each end. gRPC's window of 16 MiB for a
// connection bounds the bytes on the line and is not memory.
//
// # Goroutines
//
// Each stream has one receiving goroutine at either side; the server has the handler's
// goroutine too, and the opener one of gRPC's. They end with the stream; [Pool.Close]
// and [Server.Stop] wait for them. A stream is a [transport.Prompt]. When it is joined
// to an agent's stream, its receiving goroutine writes the received bytes to the agent,
// and the reader of the agent's session sends the agent's bytes to the bridge. So no
// other goroutine is woken in between.
package bridge
