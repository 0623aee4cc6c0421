// Command bench measures Tunnox together with programs for comparison, and prints one
// table.
//
// Its duty: everything is measured in one run on one machine, so that figures can be
// compared. First a direct loopback connection, haproxy and ssh -R if they are
// installed, and the tunnel (real programs, agent to agent through one forwarder). Then
// public mappings (tcp, http, udp) in turn with haproxy. Then the tunnel over two
// forwarders and the bridge between them, together with relays at the same places that
// only carry bytes. Then commands per second together with the insert rate of the same
// Postgres server, and the replay of a log. Then the REST API of a control plane under
// load. The aim stands beside each of our figures. Its limit: it judges nothing; a
// figure below its aim is printed and the exit status stays 0.
//
//	go run ./test/bench [-profile DIR] [-only bytes|public|cluster|control|api|capacity] [-seconds 1.5] [-idle 2000]
package main

import (
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"
)

// options are the options of a run.
type options struct {
	profile string        // directory for profiles, "" = none
	only    string        // bytes, public, cluster, control, api, capacity or "" = all
	slice   time.Duration // how long one figure is measured
	idle    int           // connections held idle
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == relayCommand {
		fmt.Fprintln(os.Stderr, "bench:", relay(os.Args[2:]))
		os.Exit(1)
	}
	if len(os.Args) > 1 && os.Args[1] == serviceCommand {
		fmt.Fprintln(os.Stderr, "bench:", runService())
		os.Exit(1)
	}
	var o options
	seconds := flag.Float64("seconds", 1.5, "how long each figure is measured")
	flag.StringVar(&o.profile, "profile", "", "`directory` for CPU and heap profiles of our processes")
	flag.StringVar(&o.only, "only", "", "bytes, public, cluster, control, api or capacity: a part of the table")
	flag.IntVar(&o.idle, "idle", 2000, "how many idle connections are held")
	flag.Parse()
	o.slice = time.Duration(*seconds * float64(time.Second))

	l := newLab()
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		l.end()
		os.Exit(130)
	}()
	err := l.run(func() { measure(l, o) })
	l.end()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func measure(l *lab, o options) {
	began := time.Now()
	l.build()
	figures := &table{}
	for _, part := range []struct {
		name    string
		measure func(*lab, options, *table)
	}{{"bytes", measureBytes}, {"public", measurePublic}, {"cluster", measureCluster}, {"control", measureControl}, {"api", measureAPI}, {"capacity", measureCapacity}} {
		if o.only == "" || o.only == part.name {
			part.measure(l, o, figures)
		}
	}
	fmt.Printf("\n%s, %d cores, everything on them, %v in all\n\n", runtime.Version(), runtime.NumCPU(), time.Since(began).Round(time.Second))
	figures.print(os.Stdout)
}
