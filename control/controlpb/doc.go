// Package controlpb holds the generated messages and stubs of the control plane's gRPC
// services, made from control.proto.
package controlpb
