//go:build !unix

package transport

import (
	"net"
	"syscall"
)

// This system has no descriptors to wait for, so bytes of sockets are moved by copy.

func rawConn(net.Conn) syscall.RawConn { return nil }

func socketToPieces(*flow) (func(), bool) { return nil, false }

func piecesToSocket(*flow) (func(), bool) { return nil, false }

type prefetch struct{ held []byte }

func newPrefetch(net.Conn) *prefetch { return nil }

func (*prefetch) fill() error { return net.ErrClosed }

func (*prefetch) take([]byte) int { return 0 }

func unread(net.Conn) bool { return false }

type promptWriter struct{}

func newPromptWriter(net.Conn) *promptWriter { return nil }

func (*promptWriter) write([]byte) (int, error) { return 0, net.ErrClosed }

func peekByte(syscall.RawConn) (byte, error) { return 0, net.ErrClosed }
