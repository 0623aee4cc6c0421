package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// exchange is one kind of request and its answer.
type exchange struct {
	host       string
	conns      int // at once, each with one request at a time
	body, wish int // bytes there and back
}

// requests repeats an exchange over connections that are kept, for d. It gives how often
// a second, and the processor time of the processes in between for each. The generator
// writes prepared bytes and reads no more of an answer than its status and its length,
// so that it takes little of the machine from what is measured.
func requests(w way, e exchange, d time.Duration, meanwhile func()) (rate float64, used time.Duration, err error) {
	method := "GET"
	if e.body > 0 {
		method = "POST"
	}
	request := fmt.Appendf(nil, "%s /%d HTTP/1.1\r\nHost: %s\r\nUser-Agent: bench\r\n", method, e.wish, e.host)
	if e.body > 0 {
		request = fmt.Appendf(request, "Content-Length: %d\r\n", e.body)
	}
	request = append(append(request, "\r\n"...), largeBody[:e.body]...)

	var n atomic.Int64
	var stop atomic.Bool
	var mu sync.Mutex
	var failed error // guarded by mu
	var work sync.WaitGroup
	for range e.conns {
		work.Go(func() {
			err := repeat(w.port, request, e.wish, &stop, &n)
			mu.Lock()
			defer mu.Unlock()
			failed = errors.Join(failed, err)
		})
	}
	time.Sleep(d / 5) // connections open, buffers grow
	before, cpuBefore, began := n.Load(), cpuOf(w.pids), time.Now()
	done := make(chan struct{})
	go func() { defer close(done); meanwhile() }()
	time.Sleep(d)
	took, answered := time.Since(began).Seconds(), n.Load()-before
	spent := cpuOf(w.pids) - cpuBefore
	<-done
	stop.Store(true)
	work.Wait()
	if failed == nil && answered == 0 {
		failed = errors.New("nothing was answered")
	}
	if failed != nil {
		return 0, 0, failed
	}
	return float64(answered) / took, spent / time.Duration(answered), nil
}

// repeat sends a request over one connection again and again, and checks each answer.
func repeat(port int, request []byte, wish int, stop *atomic.Bool, n *atomic.Int64) error {
	c, err := net.DialTCP("tcp", nil, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	in := bufio.NewReaderSize(c, 64<<10)
	for !stop.Load() {
		if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
			return err
		}
		if _, err := c.Write(request); err != nil {
			return err
		}
		if err := readAnswer(in, wish); err != nil {
			return err
		}
		n.Add(1)
	}
	return nil
}

// readAnswer reads an answer of HTTP/1.1 that must be 200 and have this many bytes.
func readAnswer(in *bufio.Reader, wish int) error {
	status, err := in.ReadSlice('\n')
	if err != nil {
		return err
	}
	if !bytes.HasPrefix(status, []byte("HTTP/1.1 200 ")) {
		return fmt.Errorf("the answer is %q", bytes.TrimSpace(status))
	}
	length := -1
	for {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return err
		}
		line = bytes.TrimSpace(line)
		if len(line) == 0 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		if bytes.EqualFold(name, []byte("Content-Length")) {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return fmt.Errorf("the answer's length is %q", value)
			}
		}
	}
	if length != wish {
		return fmt.Errorf("the answer has %d bytes, want %d", length, wish)
	}
	_, err = in.Discard(length)
	return err
}
