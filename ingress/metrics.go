package ingress

import (
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics count requests. It is a [prometheus.Collector]; its maker registers it. A nil
// one counts nothing.
type Metrics struct {
	most    int // mappings with series of their own
	seconds *prometheus.HistogramVec

	mu    sync.Mutex
	by    map[int64]*requests // by mapping
	other requests            // of all other mappings
	none  requests            // that were for no mapping
	swept time.Time           // when idle series were looked for last
}

// requests are the numbers of one mapping, by class.
type requests struct {
	classes [len(classes)]uint64
	used    time.Time
}

// classes are those of answers: by the first digit of the status, and what was cut short
// or had no answer.
var classes = [...]string{"1xx", "2xx", "3xx", "4xx", "5xx", "aborted"}

const aborted = len(classes) - 1

// seriesIdle is how long a mapping must have had no request before another may have its
// series.
const seriesIdle = time.Hour

// sweepSeries is how often idle series are looked for: not at each request of a mapping
// that has none.
const sweepSeries = time.Minute

var requestsTotal = prometheus.NewDesc("tunnox_http_requests_total",
	"Requests at public hosts, by the class of the answer's status, and by mapping: those of mappings without a series of their own together are \"other\", and \"none\" those for no mapping.",
	[]string{"class", "mapping_id"}, nil)

// NewMetrics makes metrics with series of their own for up to mappings mappings.
func NewMetrics(mappings int) *Metrics {
	return &Metrics{most: mappings, by: map[int64]*requests{},
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "tunnox_http_request_seconds",
			Help:    "From a request's head to the end of its answer, by the class of the answer's status. Upgraded connections are not in it.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 60}}, []string{"class"})}
}

func (m *Metrics) count(mapping int64, status int, whole bool, took time.Duration) {
	if m == nil {
		return
	}
	class := aborted
	if whole && status >= 100 && status < 600 {
		class = status/100 - 1
	}
	if class != 0 {
		m.seconds.WithLabelValues(classes[class]).Observe(took.Seconds())
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.of(mapping, time.Now()).classes[class]++
}

// of gives the numbers that a mapping's requests are counted in. The lock is held.
func (m *Metrics) of(mapping int64, now time.Time) *requests {
	if mapping == 0 {
		return &m.none
	}
	r := m.by[mapping]
	if r == nil {
		if len(m.by) >= m.most && now.Sub(m.swept) > sweepSeries {
			m.swept = now
			for id, other := range m.by {
				if now.Sub(other.used) > seriesIdle {
					delete(m.by, id)
				}
			}
		}
		if len(m.by) >= m.most {
			return &m.other
		}
		r = &requests{}
		m.by[mapping] = r
	}
	r.used = now
	return r
}

// Describe implements [prometheus.Collector].
func (m *Metrics) Describe(to chan<- *prometheus.Desc) {
	to <- requestsTotal
	m.seconds.Describe(to)
}

// Collect implements [prometheus.Collector].
func (m *Metrics) Collect(to chan<- prometheus.Metric) {
	m.seconds.Collect(to)
	m.mu.Lock()
	defer m.mu.Unlock()
	show := func(r *requests, mapping string) {
		for class, n := range r.classes {
			if n > 0 {
				to <- prometheus.MustNewConstMetric(requestsTotal, prometheus.CounterValue, float64(n), classes[class], mapping)
			}
		}
	}
	show(&m.none, "none")
	show(&m.other, "other")
	for id, r := range m.by {
		show(r, strconv.FormatInt(id, 10))
	}
}
