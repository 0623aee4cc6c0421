package acme

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// maxSeries bounds the hosts with a series of their own: those whose certificates end
// first.
const maxSeries = 100

var (
	heldDesc = prometheus.NewDesc("tunnox_acme_certificates", "Certificates that this control plane keeps renewed.", nil, nil)
	endDesc  = prometheus.NewDesc("tunnox_acme_certificate_end_seconds",
		"The end of a certificate from the authority, in seconds since 1970, by host; of the 100 that end first.", []string{"host"}, nil)
)

// Metrics show certificates and orders; register them.
type Metrics struct {
	orders *prometheus.CounterVec
	keeper atomic.Pointer[Keeper]
}

// NewMetrics makes the metrics.
func NewMetrics() *Metrics {
	return &Metrics{orders: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tunnox_acme_orders_total",
		Help: "Orders at the certificate authority, by result: issued or failed."}, []string{"result"})}
}

func (m *Metrics) ordered(err error) {
	result := "issued"
	if err != nil {
		result = "failed"
	}
	m.orders.WithLabelValues(result).Inc()
}

// Describe implements [prometheus.Collector].
func (m *Metrics) Describe(to chan<- *prometheus.Desc) {
	m.orders.Describe(to)
	to <- heldDesc
	to <- endDesc
}

// Collect implements [prometheus.Collector].
func (m *Metrics) Collect(to chan<- prometheus.Metric) {
	m.orders.Collect(to)
	k := m.keeper.Load()
	if k == nil {
		return
	}
	ends := k.ends()
	to <- prometheus.MustNewConstMetric(heldDesc, prometheus.GaugeValue, float64(len(ends)))
	slices.SortFunc(ends, func(a, b hostEnd) int { return a.end.Compare(b.end) })
	for _, e := range ends[:min(len(ends), maxSeries)] {
		to <- prometheus.MustNewConstMetric(endDesc, prometheus.GaugeValue, float64(e.end.Unix()), e.host)
	}
}

type hostEnd struct {
	host string
	end  time.Time
}

// ends gives the end of each certificate that is held.
func (k *Keeper) ends() (ends []hostEnd) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for host := range k.held {
		for _, c := range k.cache.AllMatchingCertificates(host) {
			ends = append(ends, hostEnd{host, c.Leaf.NotAfter})
			break // after a renewal there is one again
		}
	}
	return ends
}
