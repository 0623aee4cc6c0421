package projections

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tunnox-net/tunnox/domain"
)

// Metrics are those of a projector; main registers them. A nil *Metrics counts nothing.
type Metrics struct {
	Position prometheus.Gauge     // checkpoint of the read models
	Batch    prometheus.Histogram // records folded together
	Write    prometheus.Histogram // seconds to write a batch
	Lag      prometheus.Histogram // seconds from the append of a record to its row
	Builds   prometheus.Counter   // builds that began
	Halted   prometheus.Gauge     // 1 = a record could not be folded
}

// NewMetrics makes the metrics and registers them.
func NewMetrics(r prometheus.Registerer) *Metrics {
	m := &Metrics{
		Position: prometheus.NewGauge(prometheus.GaugeOpts{Name: "tunnox_projection_position",
			Help: "Position up to which the read models have folded the log."}),
		Batch: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "tunnox_projection_batch_records",
			Help: "Records folded into the read models together.", Buckets: []float64{1, 2, 5, 10, 20, 50, 100, 200, 500}}),
		Write: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "tunnox_projection_write_seconds",
			Help: "Time to write a batch of rows with its checkpoint.", Buckets: prometheus.ExponentialBuckets(0.0001, 2, 14)}),
		Lag: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "tunnox_projection_lag_seconds",
			Help: "Time from the append of a record until it can be read, for the oldest record of each batch.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 14)}),
		Builds: prometheus.NewCounter(prometheus.CounterOpts{Name: "tunnox_projection_builds_total",
			Help: "Builds of the read models from the start of the log."}),
		Halted: prometheus.NewGauge(prometheus.GaugeOpts{Name: "tunnox_projection_halted",
			Help: "1 when a record could not be folded and the read models do not advance any more."}),
	}
	r.MustRegister(m.Position, m.Batch, m.Write, m.Lag, m.Builds, m.Halted)
	return m
}

func (m *Metrics) at(p domain.Position) {
	if m != nil {
		m.Position.Set(float64(p))
	}
}

func (m *Metrics) applied(records int, took time.Duration) {
	if m != nil {
		m.Batch.Observe(float64(records))
		m.Write.Observe(took.Seconds())
	}
}

func (m *Metrics) lagged(facts []fact) {
	if m != nil {
		m.Lag.Observe(time.Since(facts[0].record.Recorded).Seconds())
	}
}

func (m *Metrics) rebuilding() {
	if m != nil {
		m.Builds.Inc()
	}
}

func (m *Metrics) halted() {
	if m != nil {
		m.Halted.Set(1)
	}
}
