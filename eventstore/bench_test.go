package eventstore_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/eventstore"
	"github.com/tunnox-net/tunnox/test/services"
)

// durable are the stores as in production: a commit is flushed to disk.
var durable = map[string]func(t testing.TB) eventstore.Store{
	"sqlite": openSQLite,
	"postgres": func(t testing.TB) eventstore.Store {
		return openPostgres(t, services.StartPostgres(t, services.PostgresOptions{Durable: true}).Database(t))
	},
}

// BenchmarkAppend gives commands per second. The command creates a client: two records,
// a read of the user and a new id.
func BenchmarkAppend(b *testing.B) {
	for name, open := range durable {
		for _, callers := range []int{1, 32} {
			b.Run(fmt.Sprintf("%s/callers=%d", name, callers), func(b *testing.B) {
				m := eventstore.NewMetrics(prometheus.NewRegistry())
				e := start(b, open(b), eventstore.ExecutorOptions{Metrics: m})
				users := make([]int64, callers)
				for i := range users {
					users[i] = newUser(b, e, fmt.Sprint("user", i), domain.Limits{})
				}
				b.ResetTimer()
				together(b, callers, func(i int) error {
					id, err := e.NextID(b.Context(), domain.SequenceClient)
					if err != nil {
						return err
					}
					_, err = e.Submit(b.Context(), submission(domain.CreateClient{ID: id, UserID: users[i], Name: "c", PublicKey: make([]byte, 32)}))
					return err
				})
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commands/s")
				b.ReportMetric(mean(b, m.Batch), "commands/append")
				b.ReportMetric(1000*mean(b, m.Append), "ms/append")
			})
		}
	}
}

func mean(b *testing.B, h prometheus.Histogram) float64 {
	b.Helper()
	var m dto.Metric
	if err := h.Write(&m); err != nil {
		b.Fatal(err)
	}
	return m.GetHistogram().GetSampleSum() / float64(m.GetHistogram().GetSampleCount())
}

// together lets callers do b.N operations in total.
func together(b *testing.B, callers int, do func(caller int) error) {
	b.Helper()
	var left atomic.Int64
	left.Store(int64(b.N))
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				if err := do(i); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// BenchmarkPgbench is the comparison: rows per second that pgbench inserts one by one
// into a table with one index, on the same kind of server.
func BenchmarkPgbench(b *testing.B) {
	s := services.StartPostgres(b, services.PostgresOptions{Durable: true})
	if s.Pgbench() == "" {
		b.Fatal("pgbench is missing: install the Debian package postgresql-contrib")
	}
	url := s.Database(b)
	script := filepath.Join(b.TempDir(), "insert.sql")
	insert := `INSERT INTO bench (data) VALUES ('{"client_id":600000000,"user_id":100000001,"name":"c","public_key":"AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="}');`
	if err := os.WriteFile(script, []byte(insert), 0o600); err != nil {
		b.Fatal(err)
	}
	if out, err := exec.Command(filepath.Join(filepath.Dir(s.Pgbench()), "psql"), "-qc",
		"CREATE TABLE bench (id bigserial PRIMARY KEY, data jsonb NOT NULL, at timestamptz NOT NULL DEFAULT now())", url).CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	for _, clients := range []int{1, 32} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			out, err := exec.Command(s.Pgbench(), "-n", "-M", "prepared", "-f", script, "-c", strconv.Itoa(clients), "-j", "2", "-T", "4", url).CombinedOutput()
			tps := regexp.MustCompile(`tps = ([0-9.]+)`).FindSubmatch(out)
			if err != nil || tps == nil {
				b.Fatalf("pgbench: %v: %s", err, out)
			}
			n, err := strconv.ParseFloat(string(tps[1]), 64)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(n, "rows/s")
		})
	}
}

// BenchmarkReadAll gives events per second read from the log in order.
func BenchmarkReadAll(b *testing.B) {
	for name, open := range stores {
		if name == "memory" {
			continue
		}
		b.Run(name, func(b *testing.B) {
			s := open(b)
			e := start(b, s, eventstore.ExecutorOptions{})
			var wg sync.WaitGroup
			for u := range 32 {
				wg.Go(func() {
					user := newUser(b, e, fmt.Sprint("user", u), domain.Limits{})
					for range 300 {
						newClient(b, e, user)
					}
				})
			}
			wg.Wait()
			b.ResetTimer()
			read, after := 0, domain.Position(0)
			for read < b.N {
				records, err := s.ReadAll(b.Context(), after, 1000)
				if err != nil {
					b.Fatal(err)
				}
				read, after = read+len(records), after+domain.Position(len(records))
				if len(records) < 1000 {
					after = 0
				}
			}
			b.ReportMetric(float64(read)/b.Elapsed().Seconds(), "events/s")
		})
	}
}
