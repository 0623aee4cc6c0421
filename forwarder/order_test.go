package forwarder_test

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"
)

// A service that answers and closes while part of the request is unread resets the
// connection behind its answer: the answer arrives, each time.
func TestAnswerBeforeAResetArrives(t *testing.T) {
	inBoth(t, func(t *testing.T, address func(service string) string) {
		answer := bytes.Repeat([]byte("413 "), 50)
		at := address(serve(t, func(c *net.TCPConn) {
			io.ReadFull(c, make([]byte, 1000))
			c.Write(answer)
		}))
		const all = 50
		whole := 0
		for range all {
			conn := connect(t, at)
			go conn.Write(make([]byte, 300<<10))
			conn.SetReadDeadline(time.Now().Add(20 * time.Second))
			got, _ := io.ReadAll(conn)
			if bytes.Equal(got, answer) {
				whole++
			}
			conn.Close()
		}
		if whole != all {
			t.Errorf("%d answers of %d arrived whole", whole, all)
		}
	})
}

// A client that writes and closes with a reset: its line arrives, and then a reset,
// not a clean end.
func TestLineBeforeAResetArrives(t *testing.T) {
	inBoth(t, func(t *testing.T, address func(service string) string) {
		type seen struct {
			n   int
			err error
		}
		lines := make(chan seen, 1)
		at := address(serve(t, func(c *net.TCPConn) {
			_, _ = c.Write([]byte{1})
			n, err := io.Copy(io.Discard, c)
			lines <- seen{int(n), err}
		}))
		const all = 40
		for range all {
			conn := connect(t, at)
			// The whole way is there: a visitor who leaves before that is not waited for.
			if _, err := conn.Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			conn.Write(make([]byte, 100))
			time.Sleep(time.Millisecond) // a reset overtakes what the system has not sent
			conn.SetLinger(0)
			conn.Close()
			select {
			case s := <-lines:
				if s.n != 100 || !isReset(s.err) {
					t.Errorf("the service saw %d bytes, then %v", s.n, s.err)
				}
			case <-time.After(20 * time.Second):
				t.Fatal("the service was not told")
			}
		}
	})
}

// inBoth runs the body with both agents at one forwarder, and at two.
func inBoth(t *testing.T, body func(t *testing.T, address func(service string) string)) {
	t.Run("one forwarder", func(t *testing.T) {
		over(t, func(t *testing.T, w *world) {
			body(t, func(service string) string {
				_, _, m := w.pair(service)
				return m.address
			})
		})
	})
	t.Run("two forwarders", func(t *testing.T) {
		overCluster(t, func(t *testing.T, c *cluster) {
			body(t, func(service string) string {
				_, _, m := c.apart(service)
				return m.address
			})
		})
	})
}
