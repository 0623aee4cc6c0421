// Package bridge is the link between forwarders: pooled gRPC connections under
// mTLS, on which every forwarded connection is one bidirectional stream that
// looks like any other [transport.Stream].
//
// Its duty is to carry bytes between two nodes that have proved who they are.
// Its limits: it does not know what the bytes mean (the forwarder writes an open
// into a stream and reads the answer, as on an agent's session), does not know
// where a client is, and does not forward further. It issues no certificates; it
// is handed [Trust].
//
// # Sides
//
// A [Pool] opens streams to peers; a [Server] takes them. The two of one node
// know nothing of each other, so two nodes that open to each other have a
// connection each way.
//
// # A stream
//
// A stream is one RPC, bridgepb/bridge.proto, and its identity is the HTTP/2
// stream's, which only rises and dies with its connection. A half-close, a close
// and a reset are frames; a reset by the opener is also a cancel of the RPC.
//
// gRPC has flow control of its own, but it is not enough to keep the contract of
// a stream. SendMsg of a blocked stream cannot be left at a deadline, and a
// server can say nothing, not even a reset, past data that the peer's window
// holds back. So a stream has a window above gRPC's: a writer sends at most what
// the reader's window of 512 KiB leaves, the receiving side always takes what
// comes at once and keeps it until it is read, and grants are given back at each
// quarter of the window. gRPC's windows are made larger than that and never
// close, which leaves the way free for grants, ends and resets.
//
// # Memory
//
// A stream that is not read holds at most its window of 512 KiB, of which up to
// 176 KiB can be what gRPC has not written yet at the sender, whatever the size of
// the writes (measured with all that holds them: 660 KiB with large writes, 610 KiB
// with tiny ones); it blocks nobody else. An idle stream holds no buffers: it
// costs some 14 KiB of heap and four goroutines, both ends together. A window of
// 512 KiB gives 0.5 GB/s at a round trip of 1 ms and 50 MB/s at 10 ms on one
// stream. A connection costs 68 KiB for each direction at each end, and its 16 MiB
// window of gRPC's is a bound of what is on the line, not memory.
//
// # Goroutines
//
// Each stream has one goroutine at either side that receives, the handler's at
// the server, and one of gRPC's at the opener. They end with the stream;
// [Pool.Close] and [Server.Stop] wait for them. A stream is a [transport.Prompt]:
// joined to an agent's stream, the one that receives writes what comes to the
// agent, and the agent session's reader sends what the agent says, so that nobody
// is woken in between.
package bridge
