package main

import (
	"context"
	"encoding/json"
	"net/http"
	"sync"
)

// alarms are what readiness shows although the process goes on working: a balancer
// that took every process out for it would end what still works. Parts add theirs as
// they start.
type alarms struct {
	mu  sync.Mutex
	all map[string][]func(context.Context) error // guarded by mu
}

// add has readiness ask check, under a name that several may share.
func (a *alarms) add(name string, check func(context.Context) error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.all == nil {
		a.all = map[string][]func(context.Context) error{}
	}
	a.all[name] = append(a.all[name], check)
}

// check asks those of a name, and gives what the first says that is not well.
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

// names gives the names there are.
func (a *alarms) names() (names []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for name := range a.all {
		names = append(names, name)
	}
	return names
}

// The names.
const (
	alarmAudit        = "audit"        // the log's proofs
	alarmHistory      = "history"      // followers show what the log has lost
	alarmCertificates = "certificates" // one has ended, or soon does
)

// named is a check of httpapi for a name that is added to later.
func (a *alarms) named(name string) func(context.Context) error {
	return func(ctx context.Context) error { return a.check(ctx, name) }
}

// probe answers /ready where there is no API: whether the process takes work, and its
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
	_, _ = w.Write(append(text, '\n')) // who probed may be gone
}
