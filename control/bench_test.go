package control

import (
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/domain"
)

// BenchmarkLookup measures lookups as a forwarder makes them: most clients are
// asked for again and again, one in ten lookups is of any client at all, and
// meanwhile the feed brings changes. Behind it are a real log, real read models,
// and a State service over TLS. It prints what part was answered before the
// remote hop.
func BenchmarkLookup(b *testing.B) {
	p := newPlane(b)
	user := p.user(domain.Limits{})
	const clients = 2000
	ids := make([]int64, clients)
	for i := range ids {
		ids[i] = p.client(user)
		if i > 0 && i%4 == 0 {
			p.mapping(user, ids[i], ids[i-1], 8000)
		}
	}
	head, err := p.head(b.Context())
	must(b, err)
	must(b, p.reader.Wait(b.Context(), head))
	records, err := p.store.ReadAll(b.Context(), 0, 1<<20)
	must(b, err)
	s := p.serve("")
	client := p.dial([]string{s.address})

	for _, test := range []struct {
		name      string
		readModel bool
		capacity  int
		remote    bool
	}{{"memory", true, 0, true}, {"read model flushed, small memory", false, 1500, true}, {"read model alone", true, 1, true}, {"remote alone", false, 1, true}} {
		b.Run(test.name, func(b *testing.B) {
			config := LookupConfig{Remote: client, Capacity: test.capacity, Metrics: NewClientMetrics()}
			config.ReadModel = p.reader
			if !test.readModel {
				config.ReadModel = failing{empty: true}
			}
			l := newLookup(b, config)
			for _, r := range records {
				l.Observe(r)
			}
			var done atomic.Int64
			b.SetParallelism(16)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					id := ids[rand.IntN(clients/10)]
					if rand.IntN(10) == 0 {
						id = ids[rand.IntN(clients)]
					}
					if _, err := l.ClientView(b.Context(), id, head); err != nil {
						b.Error(err)
						return
					}
					done.Add(1)
				}
			})
			m := config.Metrics
			remote := number(b, m.lookups.WithLabelValues("state"))
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "lookups/s")
			b.ReportMetric(100*(1-remote/float64(b.N)), "%before-remote")
		})
	}
}

// BenchmarkState measures calls of the State service over TLS.
func BenchmarkState(b *testing.B) {
	p := newPlane(b)
	_, source, target := p.pair()
	p.mapping(p.ownerOf(source), source, target, 8000)
	for name, views := range map[string]Views{"read model": p.reader, "log": nil} {
		s := p.serve("", func(c *ServerConfig) { c.Views = views })
		client := p.dial([]string{s.address})
		b.Run("view from the "+name, func(b *testing.B) {
			b.SetParallelism(16)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := client.ClientView(b.Context(), source, 0); err != nil {
						b.Error(err)
					}
				}
			})
		})
		b.Run("100 clients at once from the "+name, func(b *testing.B) {
			wants := make([]Want, 100)
			for i := range wants {
				wants[i] = Want{ClientID: source + int64(i%2)}
			}
			for b.Loop() {
				if _, err := client.Clients(b.Context(), wants); err != nil {
					b.Error(err)
				}
			}
		})
	}
}

func (p *plane) ownerOf(client int64) int64 {
	p.t.Helper()
	v, err := newFolds(p.store).view(p.t.Context(), client, 1<<40)
	must(p.t, err)
	return v.Client.State.UserID
}

// BenchmarkObserve measures what a record of the feed costs a forwarder that
// remembers many clients.
func BenchmarkObserve(b *testing.B) {
	m := newMemory(1<<30, time.Hour, time.Hour, time.Now, NewClientMetrics())
	for id := range int64(20_000) {
		m.put(viewAt(id+1, 1))
	}
	m.position = 1
	for i := 0; b.Loop(); i++ {
		m.observe(domain.Record{Position: domain.Position(i + 2), Stream: domain.StreamID(fmt.Sprintf("client-%d", 30_000+i)), Version: 1, Name: "client_created"})
	}
}
