package programs

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Listen opens a service on a loopback port that gives every connection to serve. The
// service and its connections end with the test.
func Listen(t testing.TB, serve func(*net.TCPConn)) *net.TCPAddr {
	t.Helper()
	listener, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	var work sync.WaitGroup
	var mu sync.Mutex
	open := map[*net.TCPConn]bool{}
	work.Go(func() {
		for {
			c, err := listener.AcceptTCP()
			if err != nil {
				return
			}
			mu.Lock()
			open[c] = true
			mu.Unlock()
			work.Go(func() {
				defer func() {
					mu.Lock()
					delete(open, c)
					mu.Unlock()
					_ = c.Close() // serve has seen everything that matters
				}()
				serve(c)
			})
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		mu.Lock()
		for c := range open {
			_ = c.Close()
		}
		mu.Unlock()
		work.Wait()
	})
	return listener.Addr().(*net.TCPAddr)
}

// Echo sends all bytes back, and then the end.
func Echo(c *net.TCPConn) {
	_, _ = io.Copy(c, c) // the peer sees how it ended
	_ = c.CloseWrite()
}

// EchoUDP is a service at a UDP address, host:port, that sends every datagram back. It
// ends with the test.
func EchoUDP(t testing.TB, address string) *net.UDPConn {
	t.Helper()
	at, err := net.ResolveUDPAddr("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.ListenUDP("udp", at)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 65536)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				_, _ = conn.WriteToUDPAddrPort(buf[:n], from)
			}
		}
	}()
	t.Cleanup(func() {
		_ = conn.Close()
		<-done
	})
	return conn
}

// FreePort gives a loopback port that was free a moment ago.
func FreePort(t testing.TB) int { t.Helper(); return FreePorts(t, 1)[0] }

// FreePorts gives different loopback ports that were free a moment ago. They are below
// the ports that the kernel gives to outgoing connections and to port 0, so that no
// other socket gets one by chance before the program under test does. No port is given
// twice, because tests run at the same time.
func FreePorts(t testing.TB, n int) []int {
	t.Helper()
	const lowest, count = 10000, 22000
	given.mu.Lock()
	defer given.mu.Unlock()
	ports := make([]int, 0, n)
	for tries := 0; len(ports) < n; tries++ {
		if tries > 4*count {
			t.Fatalf("found %d free ports, want %d", len(ports), n)
		}
		port := lowest + rand.IntN(count)
		if given.ports[port] {
			continue
		}
		l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
		if err != nil {
			continue
		}
		_ = l.Close()
		given.ports[port] = true
		ports = append(ports, port)
	}
	return ports
}

// given are the ports that FreePorts has given.
var given = struct {
	mu    sync.Mutex
	ports map[int]bool // guarded by mu
}{ports: map[int]bool{}}

// DialPort connects to a loopback port. It uses another loopback address as its source:
// Linux lets a port without a listener connect to itself, and a test that waits for a
// listener would sooner or later talk to itself.
func DialPort(port int) (*net.TCPConn, error) {
	return net.DialTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
}

// Dial is DialPort for a port that may not be open yet; the connection ends with
// the test.
func Dial(t testing.TB, port int) *net.TCPConn {
	t.Helper()
	var c *net.TCPConn
	Eventually(t, 10*time.Second, func() (err error) {
		c, err = DialPort(port)
		return err
	})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// Ask sends a message and a half-close to a loopback port and gives the whole answer.
func Ask(port int, message []byte) ([]byte, error) {
	c, err := DialPort(port)
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.Close() }()
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return nil, err
	}
	if _, err := c.Write(message); err != nil {
		return nil, err
	}
	if err := c.CloseWrite(); err != nil {
		return nil, err
	}
	return io.ReadAll(c)
}

// Metric reads one value from a server's /metrics; a name with labels is given as it is
// written there. A missing metric is an error.
func (s *Server) Metric(name string) (float64, error) {
	page, err := s.metrics.Call("GET", "/metrics", nil)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(page.Body)) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strconv.ParseFloat(strings.TrimSpace(value), 64)
		}
	}
	return 0, fmt.Errorf("no metric %s in /metrics of %s", name, s.Name)
}

// Sum adds up a metric's values over all its labels; 0 when it has none.
func (s *Server) Sum(name string) (sum float64, err error) {
	page, err := s.metrics.Call("GET", "/metrics", nil)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(page.Body)) {
		if !strings.HasPrefix(line, name+"{") && !strings.HasPrefix(line, name+" ") {
			continue
		}
		value, err := strconv.ParseFloat(strings.TrimSpace(line[strings.LastIndexByte(line, ' ')+1:len(line)-1]), 64)
		if err != nil {
			return 0, err
		}
		sum += value
	}
	return sum, nil
}

// Profile reads a page below /debug/pprof of a server started with --pprof.
func (s *Server) Profile(t testing.TB, page string) []byte {
	t.Helper()
	api := NewAPI(t, "http://"+s.Metrics, "")
	api.client.Timeout = 2 * time.Minute // a CPU profile answers at its end
	answer, err := api.Call("GET", "/debug/pprof/"+page, nil)
	if err != nil || answer.Status != 200 {
		t.Fatalf("profile %s of %s: %d %v", page, s.Name, answer.Status, err)
	}
	return answer.Body
}

// Descriptors counts the open files of the process.
func (p *Process) Descriptors() (int, error) {
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.PID()))
	return len(entries), err
}

// Status reads a value in kB from /proc/PID/FILE, for example VmRSS of status.
func (p *Process) Status(file, name string) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", p.PID(), file))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			return strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
		}
	}
	return 0, errors.New("no " + name + " in " + file)
}

// CPU gives the processor time that the process has used, in user and kernel.
func (p *Process) CPU() (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.PID()))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(fields) < 13 {
		return 0, fmt.Errorf("stat of %s has %d fields", p.Name, len(fields))
	}
	user, err1 := strconv.ParseInt(fields[11], 10, 64)
	kernel, err2 := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+kernel) * 10 * time.Millisecond, errors.Join(err1, err2) // USER_HZ is 100 on every Linux
}
