package bridge

import (
	"cmp"
	"slices"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// traffic counts bytes of streams while they flow.
type traffic struct{ sent, received atomic.Uint64 }

var (
	target = []string{"target_node"}
	origin = []string{"source_node"}

	poolConnections = prometheus.NewDesc("tunnox_bridge_pool_connections", "Connections to a peer that accept new streams.", target, nil)
	poolIdle        = prometheus.NewDesc("tunnox_bridge_pool_idle_connections", "Connections to a peer without a stream.", target, nil)
	poolRetired     = prometheus.NewDesc("tunnox_bridge_pool_retired_connections", "Connections to a peer that accept no new streams and wait for the end of those they have.", target, nil)
	poolActive      = prometheus.NewDesc("tunnox_bridge_pool_active_streams", "Streams open to a peer.", target, nil)
	poolWaiting     = prometheus.NewDesc("tunnox_bridge_pool_waiting_opens", "Opens that wait for a free place on a connection to a peer.", target, nil)
	poolUtilization = prometheus.NewDesc("tunnox_bridge_pool_utilization", "Fraction of the places on a peer's connections that are in use.", target, nil)
	poolFailed      = prometheus.NewDesc("tunnox_bridge_pool_dials_failed_total", "Dials of a peer that failed.", target, nil)
	poolBytes       = prometheus.NewDesc("tunnox_bridge_pool_bytes_total", "Bytes of the streams opened to a peer, by direction.", append(target, "direction"), nil)

	serverConnections = prometheus.NewDesc("tunnox_bridge_server_connections", "Connections from a peer.", origin, nil)
	serverActive      = prometheus.NewDesc("tunnox_bridge_server_active_streams", "Streams from a peer.", origin, nil)
	serverBytes       = prometheus.NewDesc("tunnox_bridge_server_bytes_total", "Bytes of streams from a peer, by direction.", append(origin, "direction"), nil)
)

// Describe makes a Pool a [prometheus.Collector]. A peer's series end when the pool has
// forgotten the peer.
func (p *Pool) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{poolConnections, poolIdle, poolRetired, poolActive, poolWaiting, poolUtilization, poolFailed, poolBytes} {
		ch <- d
	}
}

// Collect gives the numbers of Stats.
func (p *Pool) Collect(ch chan<- prometheus.Metric) {
	for _, s := range p.Stats() {
		gauge := func(d *prometheus.Desc, v float64) {
			ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, s.Node)
		}
		gauge(poolConnections, float64(s.Connections))
		gauge(poolIdle, float64(s.Idle))
		gauge(poolRetired, float64(s.Retired))
		gauge(poolActive, float64(s.Active))
		gauge(poolWaiting, float64(s.Waiting))
		gauge(poolUtilization, s.Utilization)
		ch <- prometheus.MustNewConstMetric(poolFailed, prometheus.CounterValue, float64(s.DialsFailed), s.Node)
		countBytes(ch, poolBytes, s.Node, s.Sent, s.Received)
	}
}

// Stats gives the numbers for every connected peer, by node.
func (s *Server) Stats() []SourceStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]SourceStats, 0, len(s.peers))
	for node, f := range s.peers {
		all = append(all, SourceStats{
			Node: node, Connections: f.connections, Active: f.active,
			Sent: f.count.sent.Load(), Received: f.count.received.Load(),
		})
	}
	slices.SortFunc(all, func(a, b SourceStats) int { return cmp.Compare(a.Node, b.Node) })
	return all
}

// Describe makes a Server a [prometheus.Collector]. A peer's series end with its last
// connection.
func (s *Server) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{serverConnections, serverActive, serverBytes} {
		ch <- d
	}
}

// Collect gives the numbers of Stats.
func (s *Server) Collect(ch chan<- prometheus.Metric) {
	for _, f := range s.Stats() {
		ch <- prometheus.MustNewConstMetric(serverConnections, prometheus.GaugeValue, float64(f.Connections), f.Node)
		ch <- prometheus.MustNewConstMetric(serverActive, prometheus.GaugeValue, float64(f.Active), f.Node)
		countBytes(ch, serverBytes, f.Node, f.Sent, f.Received)
	}
}

func countBytes(ch chan<- prometheus.Metric, d *prometheus.Desc, node string, sent, received uint64) {
	ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(sent), node, "sent")
	ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(received), node, "received")
}
