package forwarder

import (
	"cmp"
	"slices"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

var clientConnections = prometheus.NewDesc("tunnox_client_connections",
	"Open streams of a client connected to this forwarder, for the clients with most of them; the others together are \"other\".",
	[]string{"client_id"}, nil)

// ShowClients exports the open streams of up to n clients as a series each, those with
// the most streams, and those of all others as one series. Every client is a series
// that somebody stores, so the default is 0, none. Call it before the metrics are
// registered.
func (m *Metrics) ShowClients(n int) { m.clientSeries = n }

// collectClients is Collect for the series of clients.
func (m *Metrics) collectClients(ch chan<- prometheus.Metric, f *Forwarder) {
	if m.clientSeries <= 0 {
		return
	}
	all := f.routes.connections()
	others := 0
	for i, c := range all {
		if i >= m.clientSeries {
			others += c.streams
			continue
		}
		ch <- prometheus.MustNewConstMetric(clientConnections, prometheus.GaugeValue, float64(c.streams), strconv.FormatInt(c.client, 10))
	}
	if len(all) > m.clientSeries {
		ch <- prometheus.MustNewConstMetric(clientConnections, prometheus.GaugeValue, float64(others), "other")
	}
}

// clientStreams is the number of a client's open streams here.
type clientStreams struct {
	client  int64
	streams int
}

// connections lists the connected clients with their open streams, as source or target,
// those with the most first.
func (r *routes) connections() []clientStreams {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]clientStreams, 0, len(r.clients))
	for id, c := range r.clients {
		one := clientStreams{client: id}
		for _, m := range c.mappings {
			one.streams += len(m.live)
		}
		all = append(all, one)
	}
	slices.SortFunc(all, func(a, b clientStreams) int {
		return cmp.Or(cmp.Compare(b.streams, a.streams), cmp.Compare(a.client, b.client))
	})
	return all
}
