//go:build !unix

package transport

// Without descriptors that can be waited for, sockets are copied the usual way.

func newPull(*flow, *muxStream) func() { return nil }

func startSocketPump(*flow, *muxStream) bool { return false }
