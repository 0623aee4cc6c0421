package transport

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"
)

// countedConn counts system calls.
type countedConn struct {
	net.Conn
	writes atomic.Int32
}

func (c *countedConn) Write(b []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(b)
}

// Gathered bytes are written at once; received bytes can be read up to the last whole
// record without waiting; and deadlines stay with the caller.
func TestRecords(t *testing.T) {
	dir := t.TempDir()
	cert, err := LoadOrCreateIdentity(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	accepted := make(chan net.Conn, 1)
	go func() {
		defer close(accepted)
		if raw, err := ln.Accept(); err == nil {
			accepted <- raw
		}
	}()
	raw, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	counted := &countedConn{Conn: raw}
	from := NewRecords(counted)
	writer := tls.Client(from, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{protocolName}, DynamicRecordSizingDisabled: true})
	defer writer.Close()
	handshake := make(chan error, 1)
	go func() { handshake <- writer.Handshake() }()
	to := NewRecords(<-accepted)
	reader := tls.Server(to, ListenConfig{Certificate: cert}.ServerTLS())
	defer reader.Close()
	if err := errors.Join(reader.Handshake(), <-handshake); err != nil {
		t.Fatal(err)
	}

	sent := bytes.Repeat([]byte("0123456789abcdef"), 3<<10) // three records
	before := counted.writes.Load()
	from.Gather()
	if _, err := writer.Write(sent); err != nil {
		t.Fatal(err)
	}
	if n := counted.writes.Load() - before; n != 0 {
		t.Errorf("%d writes while gathering", n)
	}
	if err := from.Flush(); err != nil {
		t.Fatal(err)
	}
	if n := counted.writes.Load() - before; n != 1 {
		t.Errorf("%d writes for what was gathered", n)
	}

	var got []byte
	buf := make([]byte, 64<<10)
	for len(got) < len(sent) {
		n, err := reader.Read(buf)
		for err == nil && to.Whole() {
			got = append(got, buf[:n]...)
			n, err = reader.Read(buf)
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, buf[:n]...)
	}
	if !bytes.Equal(got, sent) {
		t.Error("other bytes arrived")
	}
	if to.Whole() {
		t.Error("a record that nobody sent")
	}
	if _, err := writer.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	_ = to.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if _, err := io.ReadFull(reader, buf[:2]); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read past the deadline: %v", err)
	}
}
