package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// The service of the public part has a process of its own, so that its work and memory
// are not those of the load generator.

// serviceCommand makes this program the service: bench service.
const serviceCommand = "service"

// ports are where a service listens: for connections, requests and datagrams.
type ports struct{ tcp, http, udp int }

// startService starts the service, which ends with the lab.
func startService(l *lab) (p ports) {
	self, err := os.Executable()
	if err != nil {
		l.Fatal(err)
	}
	cmd := exec.Command(self, serviceCommand)
	cmd.Stderr = os.Stderr
	said, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		l.Fatal("start the service: ", err)
	}
	l.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGKILL)
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(said).ReadString('\n')
	if err == nil {
		_, err = fmt.Sscan(line, &p.tcp, &p.http, &p.udp)
	}
	if err != nil {
		l.Fatal("the service did not start: ", err)
	}
	return p
}

// runService is the program of the service: it prints its ports, and never ends without
// an error.
func runService() error {
	streams, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return err
	}
	requests, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	datagrams, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return err
	}
	fmt.Println(streams.Addr().(*net.TCPAddr).Port, requests.Addr().(*net.TCPAddr).Port, datagrams.LocalAddr().(*net.UDPAddr).Port)
	failed := make(chan error, 3)
	go func() {
		for {
			c, err := streams.AcceptTCP()
			if err != nil {
				failed <- err
				return
			}
			go func() {
				defer func() { _ = c.Close() }()
				serveBench(c)
			}()
		}
	}()
	go func() {
		server := http.Server{Handler: http.HandlerFunc(answer), ReadHeaderTimeout: time.Minute}
		failed <- server.Serve(requests)
	}()
	go func() { failed <- echoDatagrams(datagrams) }()
	return <-failed
}

var largeBody = bytes.Repeat([]byte("tunnox bench, "), 1<<20/14+1)

// answer reads the request's body and gives as many bytes as its path says.
func answer(w http.ResponseWriter, r *http.Request) {
	n, err := strconv.Atoi(strings.TrimPrefix(r.URL.Path, "/"))
	if err != nil || n < 0 || n > 1<<20 {
		http.Error(w, "the path is a number of bytes up to 1048576", http.StatusBadRequest)
		return
	}
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return // the caller sees that no answer comes
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.Itoa(n))
	_, _ = w.Write(largeBody[:n]) // the caller sees what is missing
}

func echoDatagrams(c *net.UDPConn) error {
	buffer := make([]byte, 64<<10)
	for {
		n, from, err := c.ReadFromUDPAddrPort(buffer)
		if err != nil {
			return err
		}
		_, _ = c.WriteToUDPAddrPort(buffer[:n], from) // the caller counts what is lost
	}
}
