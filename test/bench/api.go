package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/tunnox-net/tunnox/eventstore"
	"github.com/tunnox-net/tunnox/test/load"
	"github.com/tunnox-net/tunnox/test/programs"
	"github.com/tunnox-net/tunnox/test/services"
)

// measureAPI reads single resources from a control plane over Postgres and Redis, and
// writes, from many callers at once. Postgres flushes to disk.
func measureAPI(l *lab, o options, t *table) {
	l.part(func(l *lab) {
		postgres := services.StartPostgres(l, services.PostgresOptions{Durable: true})
		redis, url := services.StartRedis(l), postgres.Database(l)
		// There is a rate limit, as in production, and it is higher than any caller can
		// reach.
		args := []string{"--postgres", url, "--redis", redis.URL(), "--rate-limit", "1000000", "--rate-burst", "1000000"}
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
		measureRebuild(l, t, world, url, redis.URL(), control.Dir)
	})
}

// rebuiltTakes is an upper bound of a rebuild of a log of replayEvents records.
const rebuiltTakes = 2 * time.Minute

// measureRebuild rebuilds the read models from a log with encrypted personal data, with
// the program, on a terminal, while the control plane is in use.
func measureRebuild(l *lab, t *table, world *load.World, url, redis, data string) {
	newExecutor(l, eventstore.NewPersonal(openStore(l, url))).fill(l, replayEvents)
	var rebuilt atomic.Bool
	asked := make(chan load.Result, 1)
	go func() {
		asked <- load.Run(world.Callers, rebuiltTakes, func(caller int, c *load.Caller) error {
			if rebuilt.Load() {
				return load.Enough
			}
			return world.Read(caller, c)
		})
	}()
	shown, err := programs.OnTerminal(l, "tunnoxd", "rebuild", "--postgres", url, "--redis", redis, "--data", data)
	rebuilt.Store(true)
	r := <-asked
	said := regexp.MustCompile(`from (\d+) events in ([0-9.]+) s \((\d+) events/s\)`).FindStringSubmatch(shown)
	if err != nil || said == nil {
		l.Fatalf("rebuild: %v\n%s", err, shown)
	}
	l.Logf("rebuild: %s; its bar moved %d times; meanwhile %v", said[0], strings.Count(shown, "\rbuilding ["), r)
	if r.Failed > 0 {
		l.Logf("while read models were rebuilt: %v", r.Err)
	}
	rate, err := strconv.Atoi(said[3])
	if err != nil {
		l.Fatal(err)
	}
	t.add(row{what: "read while read models are rebuilt", unit: "1/s", figures: []figure{figure(r.Rate()), ms(r.Quantile(0.5)), ms(r.Quantile(0.99)), figure(r.Failed)}, ours: 1})
	t.add(row{what: "events rebuilt meanwhile, sealed, Postgres to Redis", unit: "1/s", figures: []figure{figure(rate)}, ours: 1})
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
