package webhook

import "github.com/prometheus/client_golang/prometheus"

// Metrics of a deliverer; main registers them. No series is of one webhook: there
// may be any number.
type Metrics struct {
	deliveries *prometheus.CounterVec // deliveries that are over, by outcome
	attempts   *prometheus.CounterVec // attempts, by outcome
	seconds    prometheus.Histogram   // what an attempt took
	position   prometheus.Gauge       // the checkpoint
	lag        prometheus.Gauge       // records behind the end of the log
	pending    prometheus.Gauge       // deliveries that wait
	disabled   *prometheus.CounterVec // webhooks that were disabled, by reason
}

// NewMetrics makes the metrics and registers them; nil registers nothing.
func NewMetrics(r prometheus.Registerer) *Metrics {
	m := &Metrics{
		deliveries: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tunnox_webhook_deliveries_total",
			Help: "Deliveries that are over: delivered, or failed when they were given up."}, []string{"outcome"}),
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tunnox_webhook_attempts_total",
			Help: "Attempts to deliver: delivered, refused by an answer, unreachable without one, or closed when the address may not be reached."}, []string{"outcome"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "tunnox_webhook_attempt_seconds",
			Help: "Time an attempt to deliver took.", Buckets: prometheus.ExponentialBuckets(0.005, 2, 12)}),
		position: prometheus.NewGauge(prometheus.GaugeOpts{Name: "tunnox_webhook_position",
			Help: "Position up to which records have become deliveries, at the process that delivers."}),
		lag: prometheus.NewGauge(prometheus.GaugeOpts{Name: "tunnox_webhook_lag_records",
			Help: "Records at the end of the log that have not become deliveries yet, at the process that delivers."}),
		pending: prometheus.NewGauge(prometheus.GaugeOpts{Name: "tunnox_webhook_pending",
			Help: "Deliveries that wait to be sent, or sent again, at the process that delivers."}),
		disabled: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tunnox_webhook_disabled_total",
			Help: "Webhooks that were disabled by the system: gone, failing or crowded."}, []string{"reason"}),
	}
	if r != nil {
		r.MustRegister(m.deliveries, m.attempts, m.seconds, m.position, m.lag, m.pending, m.disabled)
	}
	return m
}
