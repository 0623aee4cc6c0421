package eventstore

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tunnox-net/tunnox/domain"
)

// Metrics are those of executor and relay; main registers them. A nil *Metrics counts
// nothing.
type Metrics struct {
	Append     prometheus.Histogram // seconds of one AppendBatch
	Batch      prometheus.Histogram // appends in one AppendBatch
	Conflicts  prometheus.Counter   // appends refused because a stream had changed
	Feed       prometheus.Gauge     // position up to which the feed was published
	FeedLag    prometheus.Histogram // seconds from the append of a record until it is on the feed
	Failures   prometheus.Counter   // failed attempts of the relay
	RolledBack prometheus.Counter   // times the log was found to be rolled back
	Forked     prometheus.Gauge     // 1 while followers still show records that the log has lost
}

// NewMetrics makes the metrics and registers them.
func NewMetrics(r prometheus.Registerer) *Metrics {
	m := &Metrics{
		Append: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "tunnox_append_latency_seconds",
			Help: "Time to append a batch of commands to the log.", Buckets: prometheus.ExponentialBuckets(0.0001, 2, 16)}),
		Batch: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "tunnox_append_batch_commands",
			Help: "Commands appended together.", Buckets: prometheus.ExponentialBuckets(1, 2, 8)}),
		Conflicts: prometheus.NewCounter(prometheus.CounterOpts{Name: "tunnox_append_conflicts_total",
			Help: "Commands that were decided again because the event streams they read had changed."}),
		Feed: prometheus.NewGauge(prometheus.GaugeOpts{Name: "tunnox_relay_position",
			Help: "Position up to which the feed is published, as far as this process knows."}),
		FeedLag: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "tunnox_relay_lag_seconds",
			Help: "Time from the append of a record until it is on the feed, for the oldest record of each batch.", Buckets: prometheus.ExponentialBuckets(0.0005, 2, 16)}),
		Failures: prometheus.NewCounter(prometheus.CounterOpts{Name: "tunnox_relay_failures_total",
			Help: "Failed attempts to carry records to the feed."}),
		RolledBack: prometheus.NewCounter(prometheus.CounterOpts{Name: "tunnox_log_taken_back_total",
			Help: "Times this process found that the log was rolled back to an earlier state, by a restore or a failover."}),
		Forked: prometheus.NewGauge(prometheus.GaugeOpts{Name: "tunnox_log_forked",
			Help: "1 while the feed or the read models still show records that a rolled back log has lost."}),
	}
	r.MustRegister(m.Append, m.Batch, m.Conflicts, m.Feed, m.FeedLag, m.Failures, m.RolledBack, m.Forked)
	return m
}

func (m *Metrics) appended(batch int, took time.Duration) {
	if m != nil {
		m.Append.Observe(took.Seconds())
		m.Batch.Observe(float64(batch))
	}
}

func (m *Metrics) conflict() {
	if m != nil {
		m.Conflicts.Inc()
	}
}

func (m *Metrics) published(p domain.Position, records []domain.Record) {
	if m == nil {
		return
	}
	m.Feed.Set(float64(p))
	if len(records) > 0 {
		m.FeedLag.Observe(time.Since(records[0].Recorded).Seconds())
	}
}

// rolledBack counts a rollback of the log.
func (m *Metrics) rolledBack() {
	if m != nil {
		m.RolledBack.Inc()
	}
}

// forked says whether the feed is still that of the log before a rollback.
func (m *Metrics) forked(begins bool) {
	switch {
	case m == nil:
	case begins:
		m.Forked.Set(1)
	default:
		m.Forked.Set(0)
	}
}

func (m *Metrics) failed() {
	if m != nil {
		m.Failures.Inc()
	}
}
