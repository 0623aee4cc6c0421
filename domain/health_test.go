package domain

import (
	"strings"
	"testing"
)

// A health check that cannot be is refused with the field, and what was left out has a
// meaning.
func TestHealthCheck(t *testing.T) {
	for text, field := range map[string]string{
		`{"kind":"icmp"}`:                                "health_check.kind",
		`{"path":"/x"}`:                                  "health_check.path",
		`{"kind":"http","path":"x"}`:                     "health_check.path",
		`{"kind":"http","path":"/a b"}`:                  "health_check.path",
		`{"kind":"http","path":"/a\r\nHost: evil"}`:      "health_check.path",
		`{"kind":"tcp","interval_seconds":-1}`:           "health_check.interval_seconds",
		`{"kind":"tcp","timeout_seconds":61}`:            "health_check.timeout_seconds",
		`{"kind":"tcp","unhealthy_after":11}`:            "health_check.unhealthy_after",
		`{"kind":"http","path":"/healthz?deep=1&x=%20"}`: "",
		`{"kind":"tcp","healthy_after":10}`:              "",
	} {
		w, change := hostWorld(t, Options{})
		err := change(`{"health_check":` + text + `}`)
		if field == "" {
			if err != nil || w.state(MappingStream(1001)).(*Mapping).HealthCheck == nil {
				t.Errorf("%s: %v", text, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v, want a fault of %s", text, err, field)
		}
	}
	w, change := hostWorld(t, Options{HealthCheck: &HealthCheck{Kind: "http"}})
	if got := w.state(MappingStream(1001)).(*Mapping).HealthCheck.Complete(); got != (HealthCheck{"http", "/", 10, 5, 1, 1}) {
		t.Errorf("left out means %+v", got)
	}
	if got := (HealthCheck{Interval: 2}).Complete(); got.Timeout != 2 {
		t.Errorf("a look may take %d seconds, and the next begins after 2", got.Timeout)
	}
	if err := change(`{"health_check":{}}`); err != nil || w.state(MappingStream(1001)).(*Mapping).HealthCheck != nil {
		t.Errorf("a check that was taken away is there, %v", err)
	}
}
