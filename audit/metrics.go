package audit

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are those of a sealer; main registers them. A nil *Metrics counts nothing.
type Metrics struct {
	Signed  prometheus.Gauge     // records under the newest checkpoint
	Records prometheus.Counter   // records that this process added to the tree
	Seal    prometheus.Histogram // seconds to extend the tree and sign it
	Alarm   prometheus.Gauge     // 1 = the log does not match its signed checkpoints
}

// NewMetrics makes the metrics and registers them.
func NewMetrics(r prometheus.Registerer) *Metrics {
	m := &Metrics{
		Signed: prometheus.NewGauge(prometheus.GaugeOpts{Name: "tunnox_audit_signed_position",
			Help: "Position up to which a signed checkpoint covers the records."}),
		Records: prometheus.NewCounter(prometheus.CounterOpts{Name: "tunnox_audit_sealed_records_total",
			Help: "Records that this process added to the Merkle tree."}),
		Seal: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "tunnox_audit_seal_seconds",
			Help: "Time to extend the Merkle tree by up to 1000 records and sign it.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 14)}),
		Alarm: prometheus.NewGauge(prometheus.GaugeOpts{Name: "tunnox_audit_alarm",
			Help: "1 when the log does not match its signed checkpoints; the log of the process says where."}),
	}
	r.MustRegister(m.Signed, m.Records, m.Seal, m.Alarm)
	return m
}

func (m *Metrics) signed(size int64) {
	if m != nil {
		m.Signed.Set(float64(size))
	}
}

func (m *Metrics) sealed(records int, took time.Duration) {
	if m != nil {
		m.Records.Add(float64(records))
		m.Seal.Observe(took.Seconds())
	}
}

func (m *Metrics) alarm(is bool) {
	if m == nil {
		return
	}
	m.Alarm.Set(0)
	if is {
		m.Alarm.Set(1)
	}
}
