package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// newRegistry makes a registry with the metrics of the process and the Go runtime.
func newRegistry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	build := prometheus.NewGauge(prometheus.GaugeOpts{Name: "tunnox_build_info", Help: "1, with the version of this build.",
		ConstLabels: prometheus.Labels{"version": shortVersion()}})
	build.Set(1)
	r.MustRegister(build,
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		collectors.NewGoCollector(collectors.WithGoCollectorRuntimeMetrics(collectors.MetricsGC, collectors.MetricsScheduler)))
	return r
}

// metricsServer serves /metrics, the probes of the process and, if the setting is on,
// profiles. The probes are here because a forwarder has no API. There is no key, so the
// server stays on loopback unless the settings say otherwise.
func (p *process) metricsServer() *http.Server {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(p.registry, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(p.log.Handler(), slog.LevelWarn), MaxRequestsInFlight: 4,
	}))
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) { probed(w, http.StatusOK, "ok") })
	mux.HandleFunc("GET /ready", p.probe)
	if p.cfg.PProf {
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	}
	return &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 8 << 10,
		ErrorLog: slog.NewLogLogger(p.log.Handler(), slog.LevelDebug)}
}

// probed answers a probe in the form of the API's probes.
func probed(w http.ResponseWriter, code int, status string) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_, _ = io.WriteString(w, `{"status":"`+status+`"}`+"\n") // the prober may be gone
}

// serveHTTP runs a server until the process ends. It waits for running requests until
// the drain time is over.
func (l *life) serveHTTP(name string, server *http.Server, on net.Listener) {
	l.run(name, func(ctx context.Context) error {
		if err := server.Serve(on); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		<-ctx.Done() // closed by the function below, which runs before this task is ended
		return nil
	})
	l.atEnd(name, func(ctx context.Context) error {
		return errors.Join(server.Shutdown(ctx), server.Close())
	})
}
