package transport_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/transport"
)

// overSplices runs the test over each kind of splice.
func overSplices(t *testing.T, test func(t *testing.T, user, service *net.TCPConn)) {
	eachPair(t, func(t *testing.T, pair sessionPair) {
		j := tunnel(t, pair)
		test(t, j.user.(*net.TCPConn), j.service.(*net.TCPConn))
		_ = j.user.Close()
		_ = j.service.Close()
		j.wait(t)
	})
}

func isReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// A service that answers and closes before it has read the whole request resets the
// connection after its answer.
func TestAnswerBeforeAResetArrives(t *testing.T) {
	for range 10 {
		overSplices(t, func(t *testing.T, user, service *net.TCPConn) {
			answer := bytes.Repeat([]byte("413 "), 50)
			go func() {
				_, _ = io.ReadFull(service, make([]byte, 1000))
				_, _ = service.Write(answer)
				_ = service.Close()
			}()
			go func() { _, _ = user.Write(make([]byte, 300<<10)) }()
			got, err := io.ReadAll(user)
			if !bytes.Equal(got, answer) {
				t.Errorf("%d bytes of %d came, then %v", len(got), len(answer), err)
			}
		})
	}
}

// A program that writes and closes with a reset, as with SO_LINGER 0, has sent its
// bytes: the bytes before the reset arrive, and then a reset, not an end.
func TestLinesBeforeAResetArrive(t *testing.T) {
	for range 10 {
		overSplices(t, func(t *testing.T, user, service *net.TCPConn) {
			line := bytes.Repeat([]byte("0123456789"), 10)
			_, _ = user.Write(line)
			if _, err := io.ReadFull(service, make([]byte, 1)); err != nil { // it is under way
				t.Fatal(err)
			}
			_, _ = user.Write(line)
			time.Sleep(time.Millisecond) // RST overtakes what the system has not sent
			_ = transport.Reset(user)
			got, err := io.ReadAll(service)
			if len(got) != 2*len(line)-1 || !isReset(err) {
				t.Errorf("%d bytes of %d came, then %v", len(got), 2*len(line)-1, err)
			}
		})
	}
}

// Until a splice has ended in order its sockets end with a reset, also when the process
// is killed: half of a file must not look like the whole file.
func TestKilledProcessResetsItsSockets(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), spliceAt+"="+ln.Addr().String())
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer child.Wait()
	defer child.Process.Kill()
	_ = ln.(*net.TCPListener).SetDeadline(time.Now().Add(20 * time.Second))
	conn, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.ReadFull(conn, make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
	_ = child.Process.Kill()
	if n, err := io.Copy(io.Discard, conn); !isReset(err) {
		t.Errorf("after the kill %d bytes came and then %v", n, err)
	}
}

// spliceAt names the address to which the killed process connects.
const spliceAt = "TRANSPORT_TEST_SPLICE_AT"

// spliceUntilKilled sends the first half of something through a splice.
func spliceUntilKilled(address string) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		os.Exit(1)
	}
	near, far := transport.Pipe()
	out, err := near.Open(context.Background())
	if err != nil {
		os.Exit(1)
	}
	in, err := far.Accept(context.Background())
	if err != nil {
		os.Exit(1)
	}
	_, _ = out.Write([]byte("half"))
	_, _, _ = transport.Splice(in, conn.(*net.TCPConn), transport.Count{})
}
