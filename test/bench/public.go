package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/tunnox-net/tunnox/test/programs"
)

// publicRounds is how often each way is measured, in turn with the others. The figure is
// the median, and a ratio is the median of the ratios of the rounds.
const publicRounds = 3

// publicHost is the host of the http mapping of a run.
const publicHost = "bench.t.example.org"

// public is one embedded server with an agent, and a public mapping of each kind.
type public struct {
	*tunnel
	tcp, http, udp way
}

func newPublic(l *lab, o options, service ports) *public {
	visitors, first := programs.FreePort(l), programs.FreePort(l)
	args := []string{"--http", fmt.Sprintf("127.0.0.1:%d", visitors), "--base-domain", "t.example.org",
		"--public-ports", fmt.Sprintf("%d-%d", first, first), "--public-address", "127.0.0.1"}
	if o.profile != "" {
		args = append(args, "--pprof")
	}
	p := &public{tunnel: &tunnel{server: programs.Serve(l, args...)}}
	api := p.server.API
	user := api.CreateUser(l, "bench")
	target := api.CreateClient(l, user.ID, "target")
	p.target = p.server.Join(l, api, target)
	pids := []int{p.server.PID(), p.target.PID()}
	publish := func(protocol string, port int, origin string, at any) {
		wanted := map[string]any{"user_id": user.ID, "target_client_id": target.ID, "protocol": protocol, "target_host": "127.0.0.1", "target_port": port, origin: at}
		if err := programs.Poll(20*time.Second, func() error { // the server announces what it serves
			answer, err := api.Call(http.MethodPost, "/api/v1/mappings", wanted)
			if err == nil && answer.Status != http.StatusCreated {
				err = fmt.Errorf("create a public mapping: %d %s", answer.Status, answer.Body)
			}
			return err
		}); err != nil {
			l.Fatal(err)
		}
	}
	publish("tcp", service.tcp, "public_port", first)
	publish("http", service.http, "public_host", strings.TrimSuffix(publicHost, ".t.example.org"))
	publish("udp", service.udp, "public_port", first) // the same number
	p.tcp, p.http, p.udp = way{"public", first, pids}, way{"public", visitors, pids}, way{"public", first, pids}
	p.way = p.tcp
	for _, ready := range []func() error{
		func() error { _, err := setUps(first, 1, time.Millisecond); return err },
		func() error {
			_, _, err := requests(p.http, exchange{publicHost, 1, 0, 1}, 50*time.Millisecond, func() {})
			return err
		},
		func() error { _, err := datagrams(first, 50*time.Millisecond, func() {}); return err },
	} {
		if err := programs.Poll(20*time.Second, ready); err != nil {
			l.Fatal(err)
		}
	}
	return p
}

// publicHaproxy starts a haproxy with a port in tcp mode and one in http mode.
func publicHaproxy(l *lab, service ports) (tcp, http way, err error) {
	open := programs.FreePorts(l, 2)
	file := filepath.Join(l.TempDir(), "haproxy.cfg")
	text := fmt.Sprintf(`global
  maxconn 4000
defaults
  timeout connect 5s
  timeout client 10m
  timeout server 10m
listen streams
  mode tcp
  option splice-auto
  bind 127.0.0.1:%d
  server service 127.0.0.1:%d
listen requests
  mode http
  option forwardfor
  http-reuse always
  bind 127.0.0.1:%d
  server service 127.0.0.1:%d
`, open[0], service.tcp, open[1], service.http)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return tcp, http, err
	}
	pid, err := daemon(l, open[0], "haproxy", "-db", "-f", file)
	return way{"haproxy", open[0], []int{pid}}, way{"haproxy", open[1], []int{pid}}, err
}

// measurePublic measures what visitors get of public mappings, beside the service itself
// and beside haproxy to the same service.
func measurePublic(l *lab, o options, t *table) {
	l.part(func(l *lab) {
		service := startService(l)
		p := newPublic(l, o, service)
		byTCP, byHTTP, err := publicHaproxy(l, service)
		if err != nil {
			l.Logf("left out: %v", err)
			byTCP, byHTTP = way{}, way{}
		}
		t.section("public", "direct", "haproxy", "public", "ratio")
		run := &publicRun{l, o, t, p}

		streams := []way{{name: "direct", port: service.tcp}, byTCP, p.tcp}
		for _, b := range []struct {
			what string
			ask  byte
		}{{"tcp, 1 connection there", askSink}, {"tcp, 1 connection back", askSource}} {
			run.inTurn(streams, func(w way, d time.Duration, meanwhile func()) ([]figure, error) {
				rate, cpu, err := throughput(w, 1, b.ask, d, meanwhile)
				return []figure{figure(rate), figure(cpu)}, err
			}, quantity{what: b.what + ", to haproxy", unit: "GB/s", to: besideHaproxy, aim: 0.40},
				quantity{what: "– CPU of the processes in between", unit: "s/GB", to: besideHaproxy, between: true})
		}

		asked := []way{{name: "direct", port: service.http}, byHTTP, p.http}
		run.inTurn(asked, func(w way, d time.Duration, meanwhile func()) ([]figure, error) {
			rate, cpu, err := requests(w, exchange{publicHost, 32, 0, 1 << 10}, d, meanwhile)
			return []figure{figure(rate), us(cpu)}, err
		}, quantity{what: "http, answers of 1 KB, 32 connections, to haproxy", unit: "1/s", to: besideHaproxy, aim: 0.5},
			quantity{what: "– CPU of the processes in between for a request", unit: "us", to: besideHaproxy, between: true})
		for _, b := range []struct {
			what     string
			exchange exchange
		}{
			{"http, bodies of 1 MB there, 8 connections", exchange{publicHost, 8, 1 << 20, 0}},
			{"http, bodies of 1 MB back, 8 connections", exchange{publicHost, 8, 0, 1 << 20}},
		} {
			run.inTurn(asked, func(w way, d time.Duration, meanwhile func()) ([]figure, error) {
				rate, cpu, err := requests(w, b.exchange, d, meanwhile)
				const gb = (1 << 20) / 1e9
				return []figure{figure(rate * gb), figure(cpu.Seconds() / gb)}, err
			}, quantity{what: b.what + ", to haproxy", unit: "GB/s", to: besideHaproxy},
				quantity{what: "– CPU of the processes in between", unit: "s/GB", to: besideHaproxy, between: true})
		}

		run.inTurn([]way{{name: "direct", port: service.udp}, {}, p.udp}, func(w way, d time.Duration, meanwhile func()) ([]figure, error) {
			f, err := datagrams(w.port, d, meanwhile)
			return []figure{figure(f.rate), us(f.p50), figure(f.lost)}, err
		}, quantity{what: "udp, 512 bytes, 32 at once, to direct", unit: "1/s", to: besideDirect, aim: 0.35},
			quantity{what: "– there and back, p50, to direct", unit: "us", to: besideDirect, aim: 5, lower: true},
			quantity{what: "– lost in a round", unit: "", to: besideNothing})

		l.part(func(l *lab) {
			addIdle(l, o, t, newPublic(l, o, service).tunnel, "public connection", 12, 3)
		})
	})
}

// The ways of the public part, by their place in a row.
const (
	besideNothing = -1
	besideDirect  = 0
	besideHaproxy = 1
)

// quantity is one thing that a measurement gives, and becomes a row.
type quantity struct {
	what, unit string
	to         int     // the way to which our ratio is
	aim        float64 // of the ratio, 0 = none
	lower      bool    // lower is better
	between    bool    // only ways with processes in between have it
}

type publicRun struct {
	l *lab
	o options
	t *table
	p *public
}

// inTurn measures the ways in turn, and adds a row for each quantity. The last way is
// ours; a way without a port is not measured.
func (r *publicRun) inTurn(all []way, measure func(w way, d time.Duration, meanwhile func()) ([]figure, error), quantities ...quantity) {
	l, o, t := r.l, r.o, r.t
	name := strings.NewReplacer(",", "", " ", "-").Replace(quantities[0].what)
	values := make([][][]figure, len(quantities)) // by quantity, way and round
	for q := range values {
		values[q] = make([][]figure, len(all))
	}
	ours := len(all) - 1
	for round := range publicRounds {
		for i, w := range all {
			if w.port == 0 {
				continue
			}
			meanwhile := func() {}
			if i == ours && round == publicRounds-1 {
				meanwhile = func() {
					r.p.sample(l, o, "public-"+name, fmt.Sprintf("profile?seconds=%d", max(1, int(o.slice.Seconds()/2))))
				}
			}
			got, err := measure(w, o.slice/2, meanwhile)
			if err != nil {
				l.Fatalf("%s over %s: %v", quantities[0].what, w.name, err)
			}
			for q := range quantities {
				values[q][i] = append(values[q][i], got[q])
			}
		}
	}
	for q, about := range quantities {
		figures := make([]figure, len(all)+1)
		for i := range all {
			figures[i] = middle(values[q][i])
		}
		if about.between {
			figures[besideDirect] = missing
		}
		figures[len(all)] = missing
		if about.to >= 0 {
			var ratios []figure
			for round, theirs := range values[q][about.to] {
				ratios = append(ratios, values[q][ours][round]/theirs)
			}
			figures[len(all)] = middle(ratios)
		}
		t.add(row{what: about.what, unit: about.unit, figures: figures, aim: about.aim, lower: about.lower})
	}
}

// middle is the median, or missing.
func middle(all []figure) figure {
	if len(all) == 0 {
		return missing
	}
	return median(all, func(f figure) figure { return f })
}
