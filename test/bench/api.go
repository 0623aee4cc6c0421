package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/tunnox-net/tunnox/test/load"
	"github.com/tunnox-net/tunnox/test/programs"
	"github.com/tunnox-net/tunnox/test/services"
)

// measureAPI asks a control plane over Postgres and Redis for single resources,
// and has it write, from many callers at once. Postgres flushes to disk.
func measureAPI(l *lab, o options, t *table) {
	l.part(func(l *lab) {
		postgres := services.StartPostgres(l, services.PostgresOptions{Durable: true})
		redis := services.StartRedis(l)
		// The limit is there, as it is for everybody, and higher than any caller gets.
		args := []string{"--postgres", postgres.Database(l), "--redis", redis.URL(), "--rate-limit", "1000000", "--rate-burst", "1000000"}
		if o.profile != "" {
			args = append(args, "--pprof")
		}
		control := programs.StartServer(l, "control", args...)
		world := load.Populate(l, control.API, manyCallers, 20)
		t.section("API, 32 callers", "per second", "p50, ms", "p99, ms", "errors", "CPU of control, us", "Postgres", "Redis", "callers")
		for _, mix := range []struct {
			what string
			aim  float64
			do   func(caller int, c *load.Caller) error
		}{
			{"single resources read", 10_000, world.Read},
			{"resources written", 1_000, world.Write},
			{"nine reads to a write", 0, world.Both},
		} {
			if r := load.Run(world.Callers, o.slice/2, mix.do); r.Failed > 0 {
				l.Fatalf("%s: %v: %v", mix.what, r, r.Err)
			}
			profile := func() {}
			if o.profile != "" {
				done := make(chan struct{})
				go func() { defer close(done); profileOf(l, o, control, mix.what) }()
				profile = func() { <-done }
			}
			pids := [][]int{{control.PID()}, {postgres.PID()}, {redis.PID()}}
			before := costs(pids)
			r := load.Run(world.Callers, o.slice, mix.do)
			after := costs(pids)
			profile()
			if r.Err != nil {
				l.Logf("%s: %v", mix.what, r.Err)
			}
			figures := []figure{figure(r.Rate()), ms(r.Quantile(0.5)), ms(r.Quantile(0.99)), figure(r.Failed)}
			for i := range after {
				figures = append(figures, us(after[i]-before[i])/figure(r.Done))
			}
			t.add(row{what: mix.what, unit: "1/s", figures: figures, ours: 1, aim: mix.aim})
		}
	})
}

// costs gives the processor time of groups of processes, and of this one.
func costs(groups [][]int) []time.Duration {
	var all []time.Duration
	for _, pids := range groups {
		all = append(all, cpuOf(pids))
	}
	var own syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &own); err != nil {
		return append(all, 0)
	}
	return append(all, time.Duration(own.Utime.Nano()+own.Stime.Nano()))
}

func ms(d time.Duration) figure { return figure(d.Seconds() * 1000) }

// profileOf stores where a control plane's time goes while it is under load.
func profileOf(l *lab, o options, control *programs.Server, what string) {
	if err := os.MkdirAll(o.profile, 0o755); err != nil {
		l.Log(err)
		return
	}
	file := filepath.Join(o.profile, "control-"+strings.ReplaceAll(what, " ", "-")+".pprof")
	sample := control.Profile(l, fmt.Sprintf("profile?seconds=%d", max(1, int(o.slice.Seconds()))))
	if err := os.WriteFile(file, sample, 0o644); err != nil {
		l.Log(err)
		return
	}
	l.Log("profile:", file)
}
