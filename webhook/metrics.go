package webhook

import "github.com/prometheus/client_golang/prometheus"

// Metrics are those of a deliverer; main registers them. No series is for a single
// webhook, because their number has no bound.
type Metrics struct {
	deliveries *prometheus.CounterVec // finished deliveries, by outcome
	attempts   *prometheus.CounterVec // attempts, by outcome
	seconds    prometheus.Histogram   // duration of an attempt
	position   prometheus.Gauge       // the checkpoint
	lag        prometheus.Gauge       // records between the checkpoint and the end of the log
	pending    prometheus.Gauge       // waiting deliveries
	disabled   *prometheus.CounterVec // webhooks that were disabled, by reason
}

// NewMetrics makes the metrics and registers them; nil registers nothing.
func NewMetrics(r prometheus.Registerer) *Metrics {
	m := &Metrics{
		deliveries: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tunnox_webhook_deliveries_total",
			Help: "Finished deliveries: delivered, or failed if they were given up."}, []string{"outcome"}),
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tunnox_webhook_attempts_total",
			Help: "Attempts to deliver: delivered, refused by the receiver's answer, unreachable if there was no answer, or closed if the address may not be reached."}, []string{"outcome"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "tunnox_webhook_attempt_seconds",
			Help: "Duration of an attempt to deliver.", Buckets: prometheus.ExponentialBuckets(0.005, 2, 12)}),
		position: prometheus.NewGauge(prometheus.GaugeOpts{Name: "tunnox_webhook_position",
			Help: "Position up to which records have become deliveries, in the process that delivers."}),
		lag: prometheus.NewGauge(prometheus.GaugeOpts{Name: "tunnox_webhook_lag_records",
			Help: "Records at the end of the log that have not become deliveries yet, in the process that delivers."}),
		pending: prometheus.NewGauge(prometheus.GaugeOpts{Name: "tunnox_webhook_pending",
			Help: "Deliveries that wait to be sent for the first time or again, in the process that delivers."}),
		disabled: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tunnox_webhook_disabled_total",
			Help: "Webhooks that the system disabled: gone, failing or crowded."}, []string{"reason"}),
	}
	if r != nil {
		r.MustRegister(m.deliveries, m.attempts, m.seconds, m.position, m.lag, m.pending, m.disabled)
	}
	return m
}
