package ingress_test

import (
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tunnox-net/tunnox/ingress"
)

// However many mappings there are, there are no more series than were asked for.
func TestSeriesAreBounded(t *testing.T) {
	metrics := ingress.NewMetrics(3)
	w := newWorldWith(t, (&raw{answer: ok}).serve, func(c *ingress.Config) { c.Metrics = metrics })
	for i := range 10 {
		w.site.Mapping = int64(i + 1)
		mustContain(t, w.exchange(get("/")), "200 OK")
	}
	w.exchange("GET / HTTP/1.1\r\nHost: other.example.org\r\nConnection: close\r\n\r\n")
	registry := prometheus.NewRegistry()
	registry.MustRegister(metrics)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			if c := m.GetCounter(); c != nil && family.GetName() == "tunnox_http_requests_total" {
				got[m.GetLabel()[0].GetValue()+" "+m.GetLabel()[1].GetValue()] = c.GetValue()
			}
		}
	}
	if want := map[string]float64{"2xx 1": 1, "2xx 2": 1, "2xx 3": 1, "2xx other": 7, "4xx none": 1}; !maps.Equal(got, want) {
		t.Errorf("counted are %v, want %v", got, want)
	}
}

// A log that is renamed or removed is begun anew, and one that cannot be written stops
// no request.
func TestAccessLogIsRotated(t *testing.T) {
	file := filepath.Join(t.TempDir(), "folder", "access.log")
	if _, err := ingress.OpenAccessLog(file, slog.New(slog.DiscardHandler)); err == nil {
		t.Fatal("a log in a folder that is not there is opened")
	}
	folder := filepath.Dir(file)
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	log, err := ingress.OpenAccessLog(file, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(log.Close)
	w := newWorldWith(t, (&raw{answer: ok}).serve, func(c *ingress.Config) { c.AccessLog = log })
	has := func(path string) {
		t.Helper()
		deadline := time.Now().Add(limit)
		for {
			mustContain(t, w.exchange(get(path)), "200 OK")
			if text, err := os.ReadFile(file); err == nil && strings.Contains(string(text), fmt.Sprintf(`"path":%q`, path)) {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s is not in the log", path)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	has("/first")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	has("/second")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	log.Reopen()
	if _, err := os.Stat(file); err != nil {
		t.Errorf("the log was not begun anew when it was asked to: %v", err)
	}
	if err := os.Rename(folder, folder+"-away"); err != nil { // it cannot be opened again
		t.Fatal(err)
	}
	deadline := time.Now().Add(limit)
	for log.Dropped() == 0 {
		mustContain(t, w.exchange(get("/lost")), "200 OK")
		if time.Now().After(deadline) {
			t.Fatal("nothing was dropped")
		}
		time.Sleep(20 * time.Millisecond)
	}
	if err := os.Rename(folder+"-away", folder); err != nil {
		t.Fatal(err)
	}
	has("/third")
}
