package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tunnox-net/tunnox/test/programs"
)

// The first byte of a connection tells the service what to do.
const (
	askSink   = 's' // read and drop
	askSource = 'd' // write until the peer closes
	askEcho   = 'e' // send back what comes
)

const chunk = 128 << 10

func serveBench(c *net.TCPConn) {
	var what [1]byte
	if _, err := io.ReadFull(c, what[:]); err != nil {
		return
	}
	// The caller checks how a connection ends; here it only ends.
	buffer := make([]byte, chunk)
	switch what[0] {
	case askSink:
		for {
			if _, err := c.Read(buffer); err != nil {
				return
			}
		}
	case askSource:
		for {
			if _, err := c.Write(buffer); err != nil {
				return
			}
		}
	case askEcho:
		small := buffer[:512]
		for {
			n, err := c.Read(small)
			if err != nil {
				return
			}
			if _, err := c.Write(small[:n]); err != nil {
				return
			}
		}
	}
}

// measureBytes fills the data plane's part of the table.
func measureBytes(l *lab, o options, t *table) {
	l.part(func(l *lab) {
		service := programs.Listen(l, serveBench).Port
		all, ours := ways(l, o, service)
		names := []string{"bytes"}
		for _, w := range all {
			names = append(names, w.name)
		}
		t.section(names...)

		cpu := row{what: "CPU of the processes in between, 8 connections there", unit: "s/GB"}
		for _, b := range []struct {
			what  string
			conns int
			ask   byte
			aim   float64
		}{
			{"throughput, 1 connection there", 1, askSink, 0.25},
			{"throughput, 1 connection back", 1, askSource, 0.25},
			{"throughput, 8 connections there", 8, askSink, 0.25},
			{"throughput, 8 connections back", 8, askSource, 0.25},
		} {
			r := row{what: b.what, unit: "GB/s", aim: b.aim}
			for _, w := range all {
				profile := func() {}
				if w.name == "tunnel" {
					profile = func() {
						ours.sample(l, o, strings.ReplaceAll(b.what, " ", "-"), fmt.Sprintf("profile?seconds=%d", max(1, int(o.slice.Seconds()))))
					}
				}
				rate, used, err := throughput(w, b.conns, b.ask, o.slice, profile)
				if err != nil {
					l.Fatalf("%s over %s: %v", b.what, w.name, err)
				}
				r.figures = append(r.figures, figure(rate))
				if b.conns == 8 && b.ask == askSink {
					cpu.figures = append(cpu.figures, figure(used))
				}
			}
			t.add(r)
		}
		cpu.figures[0] = missing // there is nothing in between
		t.add(cpu)

		for _, conns := range []int{1, 32} {
			p50 := row{what: fmt.Sprintf("round trip of 64 bytes, %d connections, p50", conns), unit: "us", lower: true}
			p99 := row{what: fmt.Sprintf("round trip of 64 bytes, %d connections, p99", conns), unit: "us", lower: true}
			if conns == 1 {
				p50.aim = 300
			}
			for _, w := range all {
				took, err := roundTrips(w.port, conns, o.slice)
				if err != nil {
					l.Fatalf("round trips over %s: %v", w.name, err)
				}
				p50.figures = append(p50.figures, us(took[len(took)/2]))
				p99.figures = append(p99.figures, us(took[len(took)*99/100]))
			}
			t.add(p50)
			t.add(p99)
		}

		setups := row{what: "connections set up, one byte each way, 8 at a time", unit: "1/s", aim: 2000}
		for _, w := range all {
			n, err := setUps(w.port, 8, o.slice)
			if err != nil {
				l.Fatalf("set-ups over %s: %v", w.name, err)
			}
			setups.figures = append(setups.figures, figure(n))
		}
		t.add(setups)
		l.part(func(l *lab) { addIdle(l, o, t, newTunnel(l, o, service, "transport"), "connection", 24, len(all)) })
	})
}

func us(d time.Duration) figure { return figure(float64(d) / float64(time.Microsecond)) }

func dialBench(port int, ask byte) (*net.TCPConn, error) {
	c, err := net.DialTCP("tcp", nil, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
	if err != nil {
		return nil, err
	}
	if _, err := c.Write([]byte{ask}); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// throughput moves bytes over conns connections for d. It gives GB per second as the
// caller sees them, and the CPU seconds per GB of the processes in between.
func throughput(w way, conns int, ask byte, d time.Duration, meanwhile func()) (rate, cpuPerGB float64, err error) {
	var total atomic.Int64
	var work sync.WaitGroup
	open := make([]*net.TCPConn, 0, conns)
	defer func() {
		for _, c := range open {
			_ = c.Close()
		}
		work.Wait()
	}()
	for range conns {
		c, err := dialBench(w.port, ask)
		if err != nil {
			return 0, 0, err
		}
		open = append(open, c)
		move := c.Write
		if ask == askSource {
			move = c.Read
		}
		work.Go(func() {
			buffer := make([]byte, chunk)
			for {
				n, err := move(buffer)
				total.Add(int64(n))
				if err != nil {
					return // closed above, or broken; then there are no bytes
				}
			}
		})
	}
	time.Sleep(d / 5) // windows open, buffers fill
	before, cpuBefore, began := total.Load(), cpuOf(w.pids), time.Now()
	done := make(chan struct{})
	go func() { defer close(done); meanwhile() }()
	time.Sleep(d)
	took, moved := time.Since(began).Seconds(), total.Load()-before
	used := cpuOf(w.pids) - cpuBefore
	<-done
	if moved == 0 {
		return 0, 0, errors.New("nothing arrived")
	}
	gb := float64(moved) / 1e9
	return gb / took, used.Seconds() / gb, nil
}

// roundTrips sends 64 bytes and waits for them, on conns connections at once.
func roundTrips(port, conns int, d time.Duration) ([]time.Duration, error) {
	var mu sync.Mutex
	var all []time.Duration
	var failed error
	var work sync.WaitGroup
	until := time.Now().Add(d)
	for range conns {
		c, err := dialBench(port, askEcho)
		if err != nil {
			return nil, err
		}
		defer func() { _ = c.Close() }()
		work.Go(func() {
			var took []time.Duration
			var err error
			message, answer := make([]byte, 64), make([]byte, 64)
			for time.Now().Before(until) && err == nil {
				began := time.Now()
				if _, err = c.Write(message); err == nil {
					_, err = io.ReadFull(c, answer)
				}
				took = append(took, time.Since(began))
			}
			mu.Lock()
			defer mu.Unlock()
			all, failed = append(all, took...), errors.Join(failed, err)
		})
	}
	work.Wait()
	slices.Sort(all)
	if len(all) == 0 && failed == nil {
		failed = errors.New("no round trip")
	}
	return all, failed
}

// setUps connects, sends a byte, reads one and closes, in a loop, and gives how often a
// second.
func setUps(port, atOnce int, d time.Duration) (float64, error) {
	var n atomic.Int64
	var mu sync.Mutex
	var failed error
	var work sync.WaitGroup
	began := time.Now()
	for range atOnce {
		work.Go(func() {
			one := make([]byte, 1)
			for time.Since(began) < d {
				c, err := dialBench(port, askEcho)
				if err == nil {
					_, err = c.Write(one)
					if err == nil {
						_, err = io.ReadFull(c, one)
					}
					err = errors.Join(err, c.Close())
				}
				if err != nil {
					mu.Lock()
					failed = errors.Join(failed, err)
					mu.Unlock()
					return
				}
				n.Add(1)
			}
		})
	}
	work.Wait()
	return float64(n.Load()) / time.Since(began).Seconds(), failed
}

// addIdle holds idle connections and divides the growth of our processes by their
// number. The processes are new, because garbage of earlier work would hide the growth.
// The aim is in KB, and the figure is in the given column, from 1.
func addIdle(l *lab, o options, t *table, ours *tunnel, what string, aim float64, column int) {
	memory := func(file, name string) (total int64) {
		for _, p := range ours.processes() {
			kb, err := p.Status(file, name)
			if err != nil {
				l.Fatal(err)
			}
			total += kb
		}
		return total
	}
	if _, err := setUps(ours.port, 4, 100*time.Millisecond); err != nil { // uses everything once
		l.Fatal(err)
	}
	time.Sleep(time.Second)
	rss, pss := memory("status", "VmRSS"), memory("smaps_rollup", "Pss")
	open := make([]*net.TCPConn, 0, o.idle)
	defer func() {
		for _, c := range open {
			_ = c.Close()
		}
	}()
	one := make([]byte, 1)
	for range o.idle {
		c, err := dialBench(ours.port, askEcho)
		if err == nil {
			open = append(open, c)
			if _, err = c.Write(one); err == nil {
				_, err = io.ReadFull(c, one)
			}
		}
		if err != nil {
			l.Fatalf("idle connection %d: %v", len(open), err)
		}
	}
	time.Sleep(time.Second)
	ours.sample(l, o, "heap-idle-"+strings.ReplaceAll(what, " ", "-"), "heap?gc=1")
	ours.sample(l, o, "goroutines-idle-"+strings.ReplaceAll(what, " ", "-"), "goroutine")
	per := func(what string, before, after int64) {
		r := row{what: what, unit: "KB", aim: aim, lower: true, ours: column}
		for range column - 1 {
			r.figures = append(r.figures, missing)
		}
		r.figures = append(r.figures, figure(float64(after-before)/float64(o.idle)))
		t.add(r)
	}
	per(fmt.Sprintf("memory per idle %s, RSS of all of ours, %d held", what, o.idle), rss, memory("status", "VmRSS"))
	per(fmt.Sprintf("memory per idle %s, PSS of all of ours", what), pss, memory("smaps_rollup", "Pss"))
}

// cpuOf sums the processor time of processes and all their descendants.
func cpuOf(pids []int) (total time.Duration) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0
	}
	type process struct {
		parent int
		cpu    time.Duration
	}
	all := map[int]process{}
	for _, path := range stats {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // gone
		}
		fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
		if len(fields) < 13 {
			continue
		}
		number := func(s string) int { n, _ := strconv.Atoi(s); return n } // the kernel writes numbers
		all[number(filepath.Base(filepath.Dir(path)))] = process{number(fields[1]),
			time.Duration(number(fields[11])+number(fields[12])) * 10 * time.Millisecond}
	}
	for pid, p := range all {
		for at := pid; at > 1; at = all[at].parent {
			if slices.Contains(pids, at) {
				total += p.cpu
				break
			}
		}
	}
	return total
}
