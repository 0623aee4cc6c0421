// Package bridgepb holds the generated messages of the bridge; bridge.proto is
// their source. The bridge writes and reads the same bytes by hand (codec.go in
// the folder above): the generated code is there for other implementations, and
// for the tests that hold the two together.
package bridgepb
