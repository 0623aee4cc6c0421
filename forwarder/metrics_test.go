package forwarder_test

import (
	"strconv"
	"testing"

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

// Series of clients are asked for, bounded, and add up.
func TestClientsHaveSeriesWhenAskedFor(t *testing.T) {
	w := newWorld(t, "memory")
	source, target, m := w.pair(echo(t))
	conn := connect(t, m.address)
	if err := roundTrip(conn, "hello"); err != nil {
		t.Fatal(err)
	}
	w.current().metrics.ShowClients(1)
	if got := w.metric("tunnox_client_connections", "client_id", "other"); got != 1 {
		t.Errorf("the others have %v", got)
	}
	w.current().metrics.ShowClients(2)
	for _, c := range []client{source, target} {
		if got := w.metric("tunnox_client_connections", "client_id", strconv.FormatInt(c.id, 10)); got != 1 {
			t.Errorf("client %d has %v", c.id, got)
		}
	}
}
