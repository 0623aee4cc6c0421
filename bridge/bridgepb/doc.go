// Package bridgepb holds the generated messages of the bridge, made from bridge.proto.
// The bridge writes and reads the same bytes by hand (codec.go in the folder above).
// The generated code is there for other implementations, and for the tests that compare
// the two.
package bridgepb
