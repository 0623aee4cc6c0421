package eventstore

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tunnox-net/tunnox/domain"
)

// Metrics of executor and relay; main registers them. A nil *Metrics counts
// nothing.
type Metrics struct {
	Append    prometheus.Histogram // seconds of one AppendBatch
	Batch     prometheus.Histogram // appends in one AppendBatch
	Conflicts prometheus.Counter   // appends refused because a stream had moved
	Feed      prometheus.Gauge     // position up to which the feed was published
	FeedLag   prometheus.Histogram // seconds from a record being appended to its being on the feed
	Failures  prometheus.Counter   // failed attempts of the relay
	TakenBack prometheus.Counter   // times the log was found to have been taken back
	Forked    prometheus.Gauge     // 1 while followers still show what the log has lost
}

// NewMetrics makes the metrics and registers them.
func NewMetrics(r prometheus.Registerer) *Metrics {
	m := &Metrics{
		Append: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "tunnox_append_latency_seconds",
			Help: "Time to append a batch of commands to the log.", Buckets: prometheus.ExponentialBuckets(0.0001, 2, 16)}),
		Batch: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "tunnox_append_batch_commands",
			Help: "Commands appended at a time.", Buckets: prometheus.ExponentialBuckets(1, 2, 8)}),
		Conflicts: prometheus.NewCounter(prometheus.CounterOpts{Name: "tunnox_append_conflicts_total",
			Help: "Commands that were decided again because what they read had changed."}),
		Feed: prometheus.NewGauge(prometheus.GaugeOpts{Name: "tunnox_relay_position",
			Help: "Position up to which this process knows the feed to be published."}),
		FeedLag: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "tunnox_relay_lag_seconds",
			Help: "Time from a record being appended to its being on the feed, of the oldest record of each batch.", Buckets: prometheus.ExponentialBuckets(0.0005, 2, 16)}),
		Failures: prometheus.NewCounter(prometheus.CounterOpts{Name: "tunnox_relay_failures_total",
			Help: "Failed attempts to carry records to the feed."}),
		TakenBack: prometheus.NewCounter(prometheus.CounterOpts{Name: "tunnox_log_taken_back_total",
			Help: "Times this process found that the log was taken back to before, by a restore or a failover."}),
		Forked: prometheus.NewGauge(prometheus.GaugeOpts{Name: "tunnox_log_forked",
			Help: "1 while the feed or the read models are still those of a log that was taken back."}),
	}
	r.MustRegister(m.Append, m.Batch, m.Conflicts, m.Feed, m.FeedLag, m.Failures, m.TakenBack, m.Forked)
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

// takenBack counts that the log was.
func (m *Metrics) takenBack() {
	if m != nil {
		m.TakenBack.Inc()
	}
}

// forked shows while the feed is of a log that was taken back.
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
