package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tunnox-net/tunnox/test/programs"
	"github.com/tunnox-net/tunnox/test/services"
)

// pairs is how often the two ways are measured in turn: the other work of the machine
// changes from second to second, and both ways should meet the same.
const pairs = 3

// measureCluster measures what a bridge between two forwarders adds to the way over one
// of them, together with the needs of relays at the same places that do nothing else.
// Our two ways have the same source agent.
func measureCluster(l *lab, o options, t *table) {
	l.part(func(l *lab) {
		service := programs.Listen(l, serveBench).Port
		here, there, forwarders := clusterWays(l, o, service)
		bareHere, bareThere, bareMiddle := bareWays(l, service)
		all := []way{here, there, bareHere, bareThere}
		middle := [][]int{{forwarders[0].PID()}, {forwarders[0].PID(), forwarders[1].PID()}, bareMiddle[0], bareMiddle[1]}
		t.section("cluster", here.name, there.name, "ratio", bareHere.name, bareThere.name, "ours/bare")

		type measured struct{ p50, p99, cpu, switches figure }
		trips := make([][]measured, len(all))
		for range pairs {
			for i, w := range all {
				cpu, switches := cpuOf(w.pids), switchesOf(w.pids)
				took, err := roundTrips(w.port, 1, o.slice)
				if err != nil {
					l.Fatalf("round trips, %s: %v", w.name, err)
				}
				n := figure(len(took))
				trips[i] = append(trips[i], measured{us(took[len(took)/2]), us(took[len(took)*99/100]),
					us(cpuOf(w.pids)-cpu) / n, figure(switchesOf(w.pids)-switches) / n})
			}
		}
		compare := func(what, unit string, lower bool, aim float64, of func(i int) figure) {
			a, b, bare, bareBridge := of(0), of(1), of(2), of(3)
			t.add(row{what: what, unit: unit, lower: lower, aim: aim, ours: 2, figures: []figure{a, b, b / a, bare, bareBridge, b / bareBridge}})
		}
		trip := func(what, unit string, aim float64, of func(measured) figure) {
			compare(what, unit, true, aim, func(i int) figure { return median(trips[i], of) })
		}
		trip("round trip of 64 bytes, 1 connection, p50", "us", 0, func(m measured) figure { return m.p50 })
		trip("round trip of 64 bytes, 1 connection, p99", "us", 0, func(m measured) figure { return m.p99 })
		added := func(i int) figure {
			p50 := func(m measured) figure { return m.p50 }
			return median(trips[i+1], p50) - median(trips[i], p50)
		}
		t.add(row{what: "what the second hop adds to the p50", unit: "us", lower: true, aim: 150, ours: 2,
			figures: []figure{missing, added(0), missing, missing, added(2), added(0) / added(2)}})
		trip("CPU of the processes for a round trip", "us", 0, func(m measured) figure { return m.cpu })
		trip("context switches of the processes for a round trip", "", 0, func(m measured) figure { return m.switches })

		for _, b := range []struct {
			what  string
			conns int
			ask   byte
			aim   float64
		}{
			{"throughput, 1 connection there", 1, askSink, 0.4},
			{"throughput, 1 connection back", 1, askSource, 0.4},
			{"throughput, 8 connections there", 8, askSink, 0},
		} {
			type moved struct{ rate, cpu, middle figure }
			runs := make([][]moved, len(all))
			for range pairs {
				for i, w := range all {
					before := cpuOf(middle[i])
					rate, used, err := throughput(w, b.conns, b.ask, o.slice, func() {
						time.Sleep(o.slice)
						before = cpuOf(middle[i]) - before
					})
					if err != nil {
						l.Fatalf("%s, %s: %v", b.what, w.name, err)
					}
					runs[i] = append(runs[i], moved{figure(rate), figure(used), figure(before.Seconds() / (rate * o.slice.Seconds()))})
				}
			}
			sampleForwarders(l, o, forwarders, b.what, func() {
				_, _, err := throughput(there, b.conns, b.ask, 2*time.Second, func() {})
				if err != nil {
					l.Fatal(err)
				}
			})
			compare(b.what, "GB/s", false, b.aim, func(i int) figure { return median(runs[i], func(m moved) figure { return m.rate }) })
			compare(b.what+", CPU of all in between", "s/GB", true, 0, func(i int) figure { return median(runs[i], func(m moved) figure { return m.cpu }) })
			compare(b.what+", CPU of forwarders", "s/GB", true, 0, func(i int) figure { return median(runs[i], func(m moved) figure { return m.middle }) })
		}

		var rates [2][]figure
		for range pairs {
			for i, w := range []way{here, there} {
				n, err := setUps(w.port, 8, o.slice)
				if err != nil {
					l.Fatalf("set-ups, %s: %v", w.name, err)
				}
				rates[i] = append(rates[i], figure(n))
			}
		}
		compare("connections set up, one byte each way, 8 at a time", "1/s", false, 0, func(i int) figure {
			if i > 1 {
				return missing // they make a TLS connection for each connection
			}
			return median(rates[i], func(f figure) figure { return f })
		})
	})
}

// median gives the middle one of the values that of gives.
func median[T any](all []T, of func(T) figure) figure {
	var figures []figure
	for _, one := range all {
		figures = append(figures, of(one))
	}
	slices.Sort(figures)
	return figures[len(figures)/2]
}

// sampleForwarders stores a CPU profile of each forwarder while load runs, if profiles
// were asked for.
func sampleForwarders(l *lab, o options, forwarders []*programs.Server, name string, load func()) {
	if o.profile == "" {
		return
	}
	var work sync.WaitGroup
	for i, f := range forwarders {
		work.Go(func() {
			file := fmt.Sprintf("%s, forwarder %d.pprof", name, i+1)
			sample(l, o, f, strings.ReplaceAll(file, " ", "-"), "profile?seconds=1")
		})
	}
	load()
	work.Wait()
}

// clusterWays starts two forwarders, a source agent at the first and a target
// agent at each.
func clusterWays(l *lab, o options, service int) (here, there way, forwarders []*programs.Server) {
	postgres := services.StartPostgres(l, services.PostgresOptions{})
	var args []string
	if o.profile != "" {
		args = append(args, "--pprof")
	}
	c := programs.StartCluster(l, 2, postgres.Database(l), services.StartRedis(l).URL(), args...)
	api := c.Control.API
	user := api.CreateUser(l, "bench")
	a, b := c.Forwarders[0], c.Forwarders[1]
	one := []string{"--sessions", "1"} // otherwise no agent would need the bridge
	client := api.CreateClient(l, user.ID, "source")
	source := a.Join(l, api, client, one...)
	to := func(name string, at *programs.Server, forwarders ...int) way {
		target := api.CreateClient(l, user.ID, name)
		agent := at.Join(l, api, target, one...)
		m := api.CreateMapping(l, programs.Mapping{UserID: user.ID, Protocol: "tcp", Source: client.ID, Target: target.ID,
			LocalPort: programs.FreePort(l), TargetHost: "127.0.0.1", TargetPort: service})
		if err := programs.Poll(20*time.Second, func() error {
			_, err := setUps(m.LocalPort, 1, time.Millisecond)
			return err
		}); err != nil {
			l.Fatal(err)
		}
		return way{name: name, port: m.LocalPort, pids: append([]int{source.PID(), agent.PID()}, forwarders...)}
	}
	return to("one forwarder", a, a.PID()), to("over a bridge", b, a.PID(), b.PID()), c.Forwarders
}

// switchesOf sums how often threads of the processes have gone to sleep. Threads that
// have ended are not included, but Go ends none.
func switchesOf(pids []int) (total int) {
	for _, pid := range pids {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/[0-9]*/status", pid))
		if err != nil {
			return 0
		}
		for _, path := range threads {
			b, err := os.ReadFile(path)
			if err != nil {
				continue // gone
			}
			for line := range strings.Lines(string(b)) {
				if rest, ok := strings.CutPrefix(line, "voluntary_ctxt_switches:"); ok {
					n, _ := strconv.Atoi(strings.TrimSpace(rest)) // the kernel writes numbers
					total += n
				}
			}
		}
	}
	return total
}
