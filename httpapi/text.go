package httpapi

import (
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"
)

// textHeaders are the headers whose values are kept or compared with what is kept.
var textHeaders = []string{"Authorization", "If-Match", "If-None-Match", "Idempotency-Key", "Last-Event-ID", "Min-Position"}

// unfit gives the refusal of a request whose path, query or headers hold what no
// store can hold: NUL, or text that is not UTF-8. It is one check before all
// others, so that what a database refuses and a file takes is answered alike.
// Bodies are checked as they are read.
func unfit(r *http.Request) *Problem {
	if !storable(r.URL.Path) {
		return invalid("path", notStorable)
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return invalid("query", "cannot be read: write % as %25, and ; as %3B")
	}
	for name, values := range query {
		for _, v := range values {
			switch {
			case !storable(name):
				return invalid("query", notStorable)
			case !storable(v):
				return invalid("query."+name, notStorable)
			}
		}
	}
	for _, name := range textHeaders {
		// Not Values: that would look for the name in its canonical form alone.
		for key, values := range r.Header {
			for _, v := range values {
				if strings.EqualFold(key, name) && !storable(v) {
					return invalid("header."+name, notStorable)
				}
			}
		}
	}
	return nil
}

const notStorable = "must be UTF-8 without NUL"

func storable(s string) bool { return utf8.ValidString(s) && !strings.Contains(s, "\x00") }

// withoutSlash forgives a slash at the end of a path, where there is something
// without it: it is the same request, also for its Idempotency-Key.
func (a *api) withoutSlash(r *http.Request) {
	path, ok := strings.CutSuffix(r.URL.Path, "/")
	if !ok || !strings.HasPrefix(path, prefix+"/") || strings.HasSuffix(path, "/") {
		return
	}
	u := *r.URL
	u.Path, u.RawPath = path, strings.TrimSuffix(u.RawPath, "/")
	if _, pattern := a.mux.Handler(&http.Request{Method: r.Method, URL: &u, Host: r.Host}); pattern != "" {
		r.URL = &u
	}
}
