package postgres

import "github.com/prometheus/client_golang/prometheus"

// Metrics show which control plane does which work for all.
type Metrics struct {
	held  *prometheus.GaugeVec // 1 = this process has the lease
	token *prometheus.GaugeVec // when it last had the lease
}

// NewMetrics makes the metrics; register them.
func NewMetrics() *Metrics {
	return &Metrics{
		held: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "tunnox_lease_held",
			Help: "1 if this process does the work that one control plane at a time does, 0 if it is on standby."}, []string{"lease"}),
		token: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "tunnox_lease_token",
			Help: "How often the lease had changed its owner when this process last had it."}, []string{"lease"}),
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
