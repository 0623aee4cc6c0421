package httpapi

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
)

// Version says which program this is.
type Version struct {
	Version string `json:"version" example:"0.1.0"`
	Commit  string `json:"commit,omitempty" example:"8b3942e"`
	Built   string `json:"built,omitempty" example:"2026-01-02T15:04:05Z"`
	Go      string `json:"go,omitempty" example:"go1.26.8"`
}

// Health is the answer of /health.
type Health struct {
	Status string `json:"status" enum:"ok" example:"ok"`
}

// Ready is the answer of /ready.
type Ready struct {
	Status string            `json:"status" enum:"ready,unready" example:"ready"`
	Checks map[string]string `json:"checks" doc:"The result of each check: ok, failed, degraded or alarm. Only failed makes the server unready. The log has the reason" example:"{\"store\":\"ok\"}"`
}

// checkTimeout bounds each check: whoever probes has a time-out of its own, and
// an answer after it helps nobody.
const checkTimeout = 2 * time.Second

// needTimeout bounds what cannot change the answer's status: a prober that waits a
// second must not take a process for unready because of something it goes on
// without.
const needTimeout = 500 * time.Millisecond

func (a *api) registerProbes() {
	op := func(path, id, summary string, errs ...int) huma.Operation {
		return huma.Operation{OperationID: id, Method: http.MethodGet, Path: path, Tags: []string{"operation"}, Summary: summary, Security: forAnybody,
			Errors: errs}
	}
	huma.Register(a.huma, op("/health", "health", "Whether the process answers"), func(context.Context, *struct{}) (*struct{ Body Health }, error) {
		return &struct{ Body Health }{Health{Status: "ok"}}, nil
	})
	ready := op("/ready", "ready", "Whether the process can do its work", http.StatusTooManyRequests)
	ready.Responses = map[string]*huma.Response{"503": {Description: "A check failed", Content: map[string]*huma.MediaType{
		"application/json": {Schema: &huma.Schema{Ref: "#/components/schemas/Ready"}}}}}
	huma.Register(a.huma, ready, a.ready)
	huma.Register(a.huma, op("/version", "version", "Which program this is"), func(context.Context, *struct{}) (*struct{ Body Version }, error) {
		return &struct{ Body Version }{a.config.Version}, nil
	})
}

func (a *api) ready(ctx context.Context, _ *struct{}) (*struct {
	Status int
	Body   Ready
}, error) {
	var mu sync.Mutex
	answer := &struct {
		Status int
		Body   Ready
	}{http.StatusOK, Ready{Status: "ready", Checks: map[string]string{}}}
	var checks sync.WaitGroup
	run := func(name string, limit time.Duration, check func(context.Context) error, failed func()) {
		checks.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, limit)
			defer cancel()
			err := check(ctx)
			mu.Lock()
			defer mu.Unlock()
			answer.Body.Checks[name] = "ok"
			if err != nil {
				a.logger.WarnContext(ctx, "readiness check failed", "check", name, "error", err)
				failed()
			}
		})
	}
	for name, check := range a.config.Checks {
		run(name, checkTimeout, check, func() {
			answer.Status, answer.Body.Status, answer.Body.Checks[name] = http.StatusServiceUnavailable, "unready", "failed"
		})
	}
	for name, need := range a.config.Needs {
		run(name, needTimeout, need, func() { answer.Body.Checks[name] = "degraded" })
	}
	for name, alarm := range a.config.Alarms {
		run(name, checkTimeout, alarm, func() { answer.Body.Checks[name] = "alarm" })
	}
	checks.Wait()
	return answer, nil
}
