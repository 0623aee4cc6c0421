package domain

import (
	"strings"
	"time"
)

// HealthCheck says how the targets of a mapping are looked at while no visitor comes: the
// target agent reaches the service at intervals. A target that does not answer as it must
// gets no new connections, as long as another one answers.
type HealthCheck struct {
	Kind      string `json:"kind,omitempty" enum:"tcp,http" unset:"tcp" doc:"tcp: the service takes a connection. http: it also answers a GET with a status below 400" example:"http"`
	Path      string `json:"path,omitempty" maxLength:"255" unset:"/" doc:"http: what is asked for" example:"/healthz"`
	Interval  int    `json:"interval_seconds,omitempty" minimum:"1" maximum:"3600" unset:"10" doc:"Seconds from one look to the next" example:"10"`
	Timeout   int    `json:"timeout_seconds,omitempty" minimum:"1" maximum:"60" unset:"5" doc:"Seconds in which the service must answer, the interval at most" example:"5"`
	Unhealthy int    `json:"unhealthy_after,omitempty" minimum:"1" maximum:"10" unset:"1" doc:"Looks in a row that must fail before a target gets no connections" example:"1"`
	Healthy   int    `json:"healthy_after,omitempty" minimum:"1" maximum:"10" unset:"1" doc:"Looks in a row that must succeed before it gets some again" example:"1"`
}

// HealthCheckHTTP is the kind of check that asks for a page.
const HealthCheckHTTP = "http"

// Complete gives the check with what was left out.
func (h HealthCheck) Complete() HealthCheck {
	fillUnset(&h)
	h.Timeout = min(h.Timeout, h.Interval)
	return h
}

// Every is the interval.
func (h HealthCheck) Every() time.Duration { return time.Duration(h.Interval) * time.Second }

// Within is in which time the service must answer.
func (h HealthCheck) Within() time.Duration { return time.Duration(h.Timeout) * time.Second }

// tidy gives nil for an object with nothing in it.
func (h *HealthCheck) tidy() *HealthCheck {
	if h == nil || *h == (HealthCheck{}) {
		return nil
	}
	return h
}

func (h *HealthCheck) check(f *faults) {
	if h == nil {
		return
	}
	var of faults
	of.bounds(h)
	switch {
	case h.Path == "":
	case h.Kind != HealthCheckHTTP:
		of.add("path", "is for a check of kind http")
	case h.Path[0] != '/' || strings.ContainsFunc(h.Path, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '#' }):
		of.add("path", "must be a path such as /healthz, in ASCII and without spaces")
	}
	for _, fault := range of.list {
		f.add("health_check."+fault.Field, fault.Message)
	}
}

// What a forwarder knows of a target, as a letter.
const (
	TargetUp      = 'u'
	TargetDown    = 'd'
	TargetUnknown = '?' // nobody has looked yet
)
