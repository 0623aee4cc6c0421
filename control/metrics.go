package control

import (
	"github.com/prometheus/client_golang/prometheus"
)

// ServerMetrics are the metrics of the State service and of the authority. It is a
// [prometheus.Collector]; its maker registers it.
type ServerMetrics struct {
	calls        *prometheus.CounterVec // calls answered, by method and gRPC code
	latency      *prometheus.HistogramVec
	views        *prometheus.CounterVec // views given, by where they were read
	refused      *prometheus.CounterVec // refused connections, by reason
	nodes        prometheus.Gauge       // connections of nodes
	strangers    prometheus.Gauge       // connections that have not proved a node yet
	certificates *prometheus.CounterVec // certificates signed, by purpose
	panics       prometheus.Counter
}

// NewServerMetrics makes metrics for one control plane.
func NewServerMetrics() *ServerMetrics {
	return &ServerMetrics{
		calls:        counters("tunnox_state_calls_total", "Calls of the State service, by method and code.", "method", "code"),
		latency:      latencies("tunnox_state_call_seconds", "Time to answer a call of the State service.", "method"),
		views:        counters("tunnox_state_views_total", "Views of clients that were given, by where they were read: read_model or log.", "from"),
		refused:      counters("tunnox_state_connections_refused_total", "Connections to the State service that were refused, by reason.", "reason"),
		nodes:        gauge("tunnox_state_connections", "Connections of nodes to the State service."),
		strangers:    gauge("tunnox_state_strangers", "Connections that have not proved a node yet."),
		certificates: counters("tunnox_certificates_issued_total", "Certificates signed by the cluster authority, by purpose.", "purpose"),
		panics:       counter("tunnox_state_panics_total", "Calls ended by a panic."),
	}
}

func (m *ServerMetrics) all() []prometheus.Collector {
	return []prometheus.Collector{m.calls, m.latency, m.views, m.refused, m.nodes, m.strangers, m.certificates, m.panics}
}

// Describe implements [prometheus.Collector].
func (m *ServerMetrics) Describe(ch chan<- *prometheus.Desc) { describe(m.all(), ch) }

// Collect implements [prometheus.Collector].
func (m *ServerMetrics) Collect(ch chan<- prometheus.Metric) { collect(m.all(), ch) }

// ClientMetrics are the metrics of a forwarder's calls to the control plane: of the
// client and of the lookup. It is a [prometheus.Collector].
type ClientMetrics struct {
	calls    *prometheus.CounterVec // calls made, by method and outcome
	latency  *prometheus.HistogramVec
	retries  prometheus.Counter     // attempts after the first
	circuits *prometheus.GaugeVec   // 1 while open, by destination
	lookups  *prometheus.CounterVec // views given, by level
	misses   *prometheus.CounterVec // levels that could not answer, by level and reason
	joined   prometheus.Counter     // lookups that shared the call of another one
	batches  prometheus.Histogram   // clients in one remote call
	clients  prometheus.Gauge       // views in memory
	parts    prometheus.Gauge       // their size, in states
}

// NewClientMetrics makes metrics for one forwarder.
func NewClientMetrics() *ClientMetrics {
	return &ClientMetrics{
		calls:    counters("tunnox_control_calls_total", "Calls to the control plane, by method and outcome.", "method", "outcome"),
		latency:  latencies("tunnox_control_call_seconds", "Time of a call to the control plane, retries included.", "method"),
		retries:  counter("tunnox_control_retries_total", "Attempts of calls to the control plane after the first."),
		circuits: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "tunnox_control_circuit_open", Help: "1 while no calls are made to this destination because it did not answer."}, []string{"to"}),
		lookups:  counters("tunnox_lookups_total", "Answered lookups of clients, by level: memory, read_model or state.", "level"),
		misses:   counters("tunnox_lookup_misses_total", "Lookups that a level could not answer, by level and reason.", "level", "reason"),
		joined:   counter("tunnox_lookups_joined_total", "Lookups that waited for another lookup of the same client."),
		batches: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "tunnox_lookup_batch_clients",
			Help: "Clients in one call of the State service.", Buckets: prometheus.ExponentialBuckets(1, 2, 8)}),
		clients: gauge("tunnox_lookup_memory_clients", "Clients whose view is in memory."),
		parts:   gauge("tunnox_lookup_memory_states", "States in the views that are in memory."),
	}
}

func (m *ClientMetrics) all() []prometheus.Collector {
	return []prometheus.Collector{m.calls, m.latency, m.retries, m.circuits, m.lookups, m.misses, m.joined, m.batches, m.clients, m.parts}
}

// Describe implements [prometheus.Collector].
func (m *ClientMetrics) Describe(ch chan<- *prometheus.Desc) { describe(m.all(), ch) }

// Collect implements [prometheus.Collector].
func (m *ClientMetrics) Collect(ch chan<- prometheus.Metric) { collect(m.all(), ch) }

func describe(all []prometheus.Collector, ch chan<- *prometheus.Desc) {
	for _, c := range all {
		c.Describe(ch)
	}
}

func collect(all []prometheus.Collector, ch chan<- prometheus.Metric) {
	for _, c := range all {
		c.Collect(ch)
	}
}

func counter(name, help string) prometheus.Counter {
	return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
}

func counters(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
}

func gauge(name, help string) prometheus.Gauge {
	return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
}

func latencies(name, help, label string) *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help,
		Buckets: prometheus.ExponentialBuckets(0.0001, 4, 9)}, []string{label})
}
