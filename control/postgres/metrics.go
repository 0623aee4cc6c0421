package postgres

import "github.com/prometheus/client_golang/prometheus"

// Metrics show who does what for all control planes.
type Metrics struct {
	held  *prometheus.GaugeVec // 1 = this process has the lease
	token *prometheus.GaugeVec // of the last time it had
}

// NewMetrics makes the metrics; register them.
func NewMetrics() *Metrics {
	return &Metrics{
		held: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "tunnox_lease_held",
			Help: "1 where this process does the work that one control plane at a time does, 0 where it stands by."}, []string{"lease"}),
		token: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "tunnox_lease_token",
			Help: "How often the lease has changed hands, when this process had it last."}, []string{"lease"}),
	}
}

// Describe implements [prometheus.Collector].
func (m *Metrics) Describe(c chan<- *prometheus.Desc) {
	m.held.Describe(c)
	m.token.Describe(c)
}

// Collect implements [prometheus.Collector].
func (m *Metrics) Collect(c chan<- prometheus.Metric) {
	m.held.Collect(c)
	m.token.Collect(c)
}
