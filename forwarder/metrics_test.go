package forwarder_test

import (
	"github.com/prometheus/client_golang/prometheus"
)

// refused gives how many streams were refused with the code.
func (w *world) refused(code string) float64 {
	return w.metric("tunnox_opens_refused_total", "code", code)
}

// metric gives the value of a counter or gauge, or the count of a histogram,
// with the given label if one is named.
func (w *world) metric(name string, label ...string) float64 {
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(w.current().metrics)
	families, err := registry.Gather()
	if err != nil {
		w.t.Error(err)
	}
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, m := range family.GetMetric() {
			if len(label) == 2 && (len(m.GetLabel()) != 1 || m.GetLabel()[0].GetName() != label[0] || m.GetLabel()[0].GetValue() != label[1]) {
				continue
			}
			return m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return 0
}
