// Package controlpb holds the generated messages and stubs of the control
// plane's gRPC services; control.proto is their source.
package controlpb
