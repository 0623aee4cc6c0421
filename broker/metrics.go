package broker

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tunnox-net/tunnox/domain"
)

// Metrics are those of the feed; main registers them. A nil *Metrics counts nothing.
type Metrics struct {
	Published prometheus.Gauge     // newest position put on the feed by this process
	Position  prometheus.Gauge     // newest position delivered to a follower of this process
	Lag       prometheus.Histogram // seconds from the append of a record to its delivery
	Gaps      prometheus.Counter   // followers that had to start again from a snapshot
	forged    prometheus.Counter   // entries that no control plane wrote
}

// NewMetrics makes the metrics and registers them.
func NewMetrics(r prometheus.Registerer) *Metrics {
	m := &Metrics{
		Published: prometheus.NewGauge(prometheus.GaugeOpts{Name: "tunnox_feed_published_position",
			Help: "Newest position this process has put on the configuration feed."}),
		Position: prometheus.NewGauge(prometheus.GaugeOpts{Name: "tunnox_feed_position",
			Help: "Newest position of the configuration feed delivered in this process."}),
		Lag: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "tunnox_feed_lag_seconds",
			Help: "Time from the append of a record to its delivery.", Buckets: prometheus.ExponentialBuckets(0.0005, 2, 16)}),
		Gaps: prometheus.NewCounter(prometheus.CounterOpts{Name: "tunnox_feed_gaps_total",
			Help: "Gaps found by followers of the configuration feed."}),
		forged: prometheus.NewCounter(prometheus.CounterOpts{Name: "tunnox_feed_forged_total",
			Help: "Entries of the configuration feed that no control plane has written."}),
	}
	r.MustRegister(m.Published, m.Position, m.Lag, m.Gaps, m.forged)
	return m
}

// Put sets the newest position on the feed to p.
func (m *Metrics) Put(p domain.Position) {
	if m != nil {
		m.Published.Set(float64(p))
	}
}

// Delivered counts a delivered entry, or the gap that a follower found.
func (m *Metrics) Delivered(e Entry, err error) {
	switch {
	case m == nil:
	case errors.Is(err, ErrGap):
		m.Gaps.Inc()
	case err == nil:
		m.Position.Set(float64(e.Position))
		if e.Record != nil {
			m.Lag.Observe(time.Since(e.Record.Recorded).Seconds())
		}
	}
}

// Forged notes an entry that no control plane has written.
func (m *Metrics) Forged() {
	if m != nil {
		m.forged.Inc()
	}
}
