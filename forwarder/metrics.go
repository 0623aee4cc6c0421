package forwarder

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tunnox-net/tunnox/datagram"
	"github.com/tunnox-net/tunnox/transport"
)

// Metrics are the forwarder's metrics. It is a [prometheus.Collector]; its maker
// registers it.
type Metrics struct {
	of atomic.Pointer[Forwarder] // the gauges below are read from its state

	clients  *prometheus.Desc // clients with a session here
	mappings *prometheus.Desc // mappings known here that may carry streams
	streams  *prometheus.Desc // streams being opened or joined
	logins   *prometheus.Desc // sessions that have not been welcomed yet
	ports    *prometheus.Desc // public ports that mappings have here, by state
	bytes    *prometheus.Desc // bytes carried, by direction
	flows    *prometheus.Desc // of datagrams, at public ports
	waiting  *prometheus.Desc // lanes, by state
	packets  *prometheus.Desc // datagrams at public ports, by outcome

	datagrams datagram.Counts // at public ports
	toTarget  atomic.Int64
	toSource  atomic.Int64

	welcomed prometheus.Counter     // sessions that were welcomed
	refused  *prometheus.CounterVec // sessions refused or ended by this side, by code
	opens    prometheus.Counter     // streams joined
	opensNo  *prometheus.CounterVec // streams refused, by code
	push     prometheus.Histogram   // from the decision on a change to the agent's acknowledgement
	queued   prometheus.Histogram   // how long a new byte to an agent would wait here, at each look at a full link
	failures prometheus.Counter     // listeners that agents reported as not opened
	position prometheus.Gauge       // position of the last record applied
	lag      prometheus.Gauge       // age of the last record when it was applied
	gaps     prometheus.Counter     // gaps in the feed
	forks    prometheus.Counter     // times the feed belonged to another log
	anew     prometheus.Gauge       // 1 while routes may show records that a rolled back log has lost
	panics   prometheus.Counter     // connections ended by a panic
	renewals *prometheus.CounterVec // calls of the directory, by outcome
	bridged  *prometheus.CounterVec // streams joined over the bridge, by direction
	skipped  prometheus.Counter     // targets that did not answer, where the next one was tried
	commands *prometheus.CounterVec // of agents, by outcome
	located  *prometheus.CounterVec // lookups of a target's place, by the kind of answer
	reports  *prometheus.CounterVec // reports of usage, by outcome
	lanes    *prometheus.CounterVec // lanes of agents, by what came of them
	portions *prometheus.CounterVec // calls for a portion of a mapping's connections, by outcome

	clientSeries int // this many clients have a series of their own

	total transport.Count // of the bytes of other forwarders' streams
}

// NewMetrics makes metrics for one forwarder.
func NewMetrics() *Metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	counters := func(name, help, label string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labels, nil)
	}
	m := &Metrics{
		clients:  desc("tunnox_clients_online", "Clients with a session at this forwarder."),
		mappings: desc("tunnox_mappings_active", "Mappings known at this forwarder that may carry streams."),
		streams:  desc("tunnox_streams_active", "Streams being opened or joined at this forwarder."),
		logins:   desc("tunnox_logins_pending", "Sessions that have not been welcomed yet."),
		ports:    desc("tunnox_public_ports", "Public ports of mappings at this forwarder, by state: open, or failed when the port cannot be opened.", "state"),
		flows:    desc("tunnox_udp_flows", "Flows of datagrams at public ports."),
		packets: desc("tunnox_udp_datagrams_total", "Datagrams at public ports, by outcome: carried, dropped because a stream was too slow or the system did not take them, "+
			"refused because there are too many flows or no way to the service, spared because the source may be forged.", "outcome"),
		bytes:    desc("tunnox_bytes_transferred_total", "Bytes carried, by direction.", "direction"),
		welcomed: counter("tunnox_sessions_welcomed_total", "Sessions that were welcomed."),
		refused:  counters("tunnox_sessions_refused_total", "Sessions refused or ended by the forwarder, by code.", "code"),
		opens:    counter("tunnox_opens_total", "Streams that were joined to a target agent."),
		opensNo:  counters("tunnox_opens_refused_total", "Streams that were refused, by code.", "code"),
		push: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "tunnox_push_latency_seconds",
			Help:    "From the decision on a change to the acknowledgement of the agent that applied it.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10}}),
		queued: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "tunnox_link_queue_seconds",
			Help:    "How long a new byte to an agent would wait in this machine, at each look at a full link.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5}}),
		failures: counter("tunnox_listener_failures_total", "Listeners that agents reported as not opened."),
		position: gauge("tunnox_forwarder_position", "Last position of the configuration feed that was applied."),
		lag:      gauge("tunnox_forwarder_lag_seconds", "Age of the last record of the configuration feed when it was applied."),
		forks:    counter("tunnox_forwarder_forks_total", "Times the log was found to be rolled back, each followed by a snapshot."),
		anew:     gauge("tunnox_forwarder_forked", "1 while routes may still show records that a rolled back log has lost."),
		gaps:     counter("tunnox_forwarder_gaps_total", "Gaps in the configuration feed, each followed by a snapshot."),
		panics:   counter("tunnox_connection_panics_total", "Connections that were ended by a panic."),
		renewals: counters("tunnox_directory_calls_total", "Calls of the directory, by outcome.", "outcome"),
		bridged:  counters("tunnox_bridge_opens_total", "Streams joined over the bridge, by direction: out to the target's forwarder, in from the source's.", "direction"),
		skipped:  counter("tunnox_targets_passed_over_total", "Targets that did not answer, where another one of the mapping was tried."),
		commands: counters("tunnox_agent_commands_total", "Commands of agents, by outcome: done, refused or failed.", "outcome"),
		located:  counters("tunnox_locate_total", "Lookups of a target's forwarder, by answer: cache, directory, stale, absent or error.", "answer"),
		reports:  counters("tunnox_usage_reports_total", "Reports of usage to the control plane, by outcome: counted or failed.", "outcome"),
		lanes: counters("tunnox_lanes_total", "Lanes of agents, by what came of them: parked; refused, because they proved nothing or were too many; "+
			"joined, a pair; unavailable, a stream that stays in its session.", "outcome"),
		waiting:  desc("tunnox_lanes", "Lanes of agents at this forwarder, by state: parked, or joined with another one.", "state"),
		portions: counters("tunnox_connection_shares_total", "Calls for a portion of a mapping's limit of connections, by outcome: granted, refused or failed.", "outcome"),
	}
	m.total = totalOf(m)
	return m
}

// Queued is for the sessions of agents: see transport.SessionConfig.
func (m *Metrics) Queued(wait time.Duration) { m.queued.Observe(wait.Seconds()) }

// observe lets the gauges read the forwarder's state when they are collected.
func (m *Metrics) observe(f *Forwarder) { m.of.Store(f) }

func (m *Metrics) parts() []prometheus.Collector {
	return []prometheus.Collector{m.welcomed, m.refused, m.opens, m.opensNo, m.push, m.queued, m.failures,
		m.position, m.lag, m.gaps, m.forks, m.anew, m.panics, m.renewals, m.bridged, m.located, m.commands, m.skipped, m.reports, m.portions, m.lanes}
}

// Describe implements [prometheus.Collector].
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.clients, m.mappings, m.streams, m.logins, m.ports, m.bytes, m.flows, m.packets, m.waiting} {
		ch <- d
	}
	if m.clientSeries > 0 {
		ch <- clientConnections
	}
	for _, c := range m.parts() {
		c.Describe(ch)
	}
}

// Collect implements [prometheus.Collector].
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	for _, c := range m.parts() {
		c.Collect(ch)
	}
	count := func(n int64, direction string) {
		ch <- prometheus.MustNewConstMetric(m.bytes, prometheus.CounterValue, float64(n), direction)
	}
	count(m.toTarget.Load(), "to_target")
	count(m.toSource.Load(), "to_source")
	d := &m.datagrams
	ch <- prometheus.MustNewConstMetric(m.flows, prometheus.GaugeValue, float64(d.Open.Load()))
	for outcome, n := range map[string]int64{"carried": d.Carried.Load(), "dropped": d.Dropped.Load(), "refused": d.Refused.Load(), "spared": d.Spared.Load()} {
		ch <- prometheus.MustNewConstMetric(m.packets, prometheus.CounterValue, float64(n), outcome)
	}
	f := m.of.Load()
	if f == nil {
		return
	}
	clients, active := f.routes.counts()
	gauge := func(d *prometheus.Desc, n int) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(n))
	}
	gauge(m.clients, clients)
	gauge(m.mappings, active)
	gauge(m.streams, int(f.inFlight.Load()))
	gauge(m.logins, f.logins.count())
	for state, n := range map[string]int{"parked": f.parking.parked(), "joined": 2 * int(f.joined.Load())} {
		ch <- prometheus.MustNewConstMetric(m.waiting, prometheus.GaugeValue, float64(n), state)
	}
	open, failed := f.ports.count()
	for state, n := range map[string]int{"open": open, "failed": failed} {
		ch <- prometheus.MustNewConstMetric(m.ports, prometheus.GaugeValue, float64(n), state)
	}
	m.collectClients(ch, f)
}
