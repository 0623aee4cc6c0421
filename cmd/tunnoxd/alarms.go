package main

import (
	"context"
	"encoding/json"
	"net/http"
	"sync"
)

// alarms are faults that readiness shows while the process still works. If a balancer
// removed every process because of them, the work that is still possible would end.
// Parts add their alarms when they start.
type alarms struct {
	mu  sync.Mutex
	all map[string][]func(context.Context) error // guarded by mu
}

// add makes readiness ask check, under a name that several checks may have.
func (a *alarms) add(name string, check func(context.Context) error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.all == nil {
		a.all = map[string][]func(context.Context) error{}
	}
	a.all[name] = append(a.all[name], check)
}

// check calls the checks of a name, and gives the first error.
func (a *alarms) check(ctx context.Context, name string) error {
	a.mu.Lock()
	checks := a.all[name]
	a.mu.Unlock()
	for _, check := range checks {
		if err := check(ctx); err != nil {
			return err
		}
	}
	return nil
}

// names gives all names.
func (a *alarms) names() (names []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for name := range a.all {
		names = append(names, name)
	}
	return names
}

// The names of alarms.
const (
	alarmAudit        = "audit"        // the log's proofs
	alarmHistory      = "history"      // followers show records that the log has lost
	alarmCertificates = "certificates" // a certificate has expired, or will soon
	alarmEviction     = "redis_memory" // Redis evicts keys when its memory is full
)

// named gives a check for httpapi under a name to which parts may add later.
func (a *alarms) named(name string) func(context.Context) error {
	return func(ctx context.Context) error { return a.check(ctx, name) }
}

// shownAlarms gives the alarms that /ready of the API shows.
func (p *process) shownAlarms() map[string]func(context.Context) error {
	shown := map[string]func(context.Context) error{}
	for _, name := range []string{alarmAudit, alarmHistory, alarmCertificates} {
		shown[name] = p.alarms.named(name)
	}
	if p.cfg.Redis != "" {
		shown[alarmEviction] = p.alarms.named(alarmEviction)
	}
	return shown
}

// probe answers /ready in a process without an API: whether it accepts work, and its
// alarms.
func (p *process) probe(w http.ResponseWriter, r *http.Request) {
	answer := struct {
		Status string            `json:"status"`
		Checks map[string]string `json:"checks,omitempty"`
	}{Status: "ready", Checks: map[string]string{}}
	code := http.StatusOK
	if !p.ready() {
		answer.Status, code = "unready", http.StatusServiceUnavailable
	}
	for _, name := range p.alarms.names() {
		answer.Checks[name] = "ok"
		if err := p.alarms.check(r.Context(), name); err != nil {
			answer.Checks[name] = "alarm"
			p.log.WarnContext(r.Context(), "readiness check failed", "check", name, "error", err)
		}
	}
	text, err := json.Marshal(answer)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_, _ = w.Write(append(text, '\n')) // the prober may be gone
}
