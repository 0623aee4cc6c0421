package domain

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// HTTPOptions say what is changed of the requests and answers of an http mapping.
type HTTPOptions struct {
	HostHeader      string         `json:"host_header,omitempty" maxLength:"255" doc:"The Host that the service sees, host or host:port. Left out: the visitor's" example:"localhost:3000"`
	RequestHeaders  *HeaderChanges `json:"request_headers,omitempty" doc:"What is changed of the headers that the service gets"`
	ResponseHeaders *HeaderChanges `json:"response_headers,omitempty" doc:"What is changed of the headers that visitors get from the service"`
	StripPrefix     string         `json:"strip_prefix,omitempty" maxLength:"255" doc:"A path that is taken off the beginning of each request's path, on the borders of segments: with /app, the service sees /app/x as /x and X-Forwarded-Prefix: /app" example:"/app"`
}

// HeaderChanges are made to the headers of a message: first what goes, then what comes.
type HeaderChanges struct {
	Set    map[string]string `json:"set,omitempty" doc:"Headers with their values, instead of those that there are" example:"{\"X-From\":\"tunnel\"}"`
	Remove []string          `json:"remove,omitempty" doc:"Names of headers that are taken away" example:"X-Powered-By"`
}

const (
	maxHeaderChanges = 50
	maxHeaderName    = 100      // bytes
	maxHeaderBytes   = 16 << 10 // of all that is set of one message
)

// Headers that nobody but the programs of a connection may choose (RFC 9110, 7.6.1), or
// that say how long a message is, and those that are ours.
var (
	hopHeaders = []string{"connection", "proxy-connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te",
		"trailer", "transfer-encoding", "upgrade", "http2-settings", "content-length", "tunnox-error"}
	forwardingHeaders = []string{"forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-forwarded-prefix", "tunnox-user"}
)

func (h *HTTPOptions) check(f *faults) {
	if h == nil {
		return
	}
	if h.HostHeader != "" && !hostHeader(h.HostHeader) {
		f.add("http.host_header", "must be a host, or host:port, for example localhost:3000")
	}
	if h.StripPrefix == "/" {
		f.add("http.strip_prefix", "is / and takes nothing off: leave it out")
	} else if h.StripPrefix != "" {
		f.publicPath("http.strip_prefix", h.StripPrefix)
	}
	h.RequestHeaders.check(f, "http.request_headers", true)
	h.ResponseHeaders.check(f, "http.response_headers", false)
}

// hostHeader reports whether a text is good for a Host header.
func hostHeader(s string) bool {
	host := s
	if h, port, err := net.SplitHostPort(s); err == nil {
		if _, err := strconv.ParseUint(port, 10, 16); err != nil {
			return false
		}
		host = h
	}
	var f faults
	f.host("", strings.TrimSuffix(strings.TrimPrefix(host, "["), "]"))
	return len(s) <= 255 && len(f.list) == 0
}

func (c *HeaderChanges) check(f *faults, field string, request bool) {
	if c == nil {
		return
	}
	if n := len(c.Set) + len(c.Remove); n > maxHeaderChanges {
		f.add(field, fmt.Sprintf("must have up to %d headers, has %d", maxHeaderChanges, n))
		return
	}
	bytes, seen := 0, map[string]bool{}
	names := slices.Sorted(maps.Keys(c.Set))
	for _, name := range slices.Concat(names, c.Remove) {
		lower := strings.ToLower(name)
		_, set := c.Set[name]
		switch {
		case !headerName(name):
			f.add(field, fmt.Sprintf("%q is no name of a header", clipped(name)))
		case slices.Contains(hopHeaders, lower):
			f.add(field, name+" belongs to the connection, or to Tunnox, and cannot be changed")
		case request && lower == "host":
			f.add(field, "Host is set with host_header")
		case strings.HasPrefix(lower, "sec-websocket-"), request && lower == "expect":
			f.add(field, name+" belongs to the visitor's connection and cannot be changed")
		case set && request && slices.Contains(forwardingHeaders, lower):
			f.add(field, name+" says where a request comes from and is set by Tunnox alone; it can be removed")
		case seen[lower]:
			f.add(field, name+" stands there twice")
		}
		seen[lower] = true
	}
	for _, name := range names {
		value := c.Set[name]
		bytes += len(name) + len(value)
		if !utf8.ValidString(value) || strings.TrimSpace(value) != value || !plainText(value) {
			f.add(field, "the value of "+clipped(name)+" must have no control characters, and no space at its ends")
		}
	}
	if bytes > maxHeaderBytes {
		f.add(field, fmt.Sprintf("must have up to %d bytes, has %d", maxHeaderBytes, bytes))
	}
}

// headerName reports whether a text is a token (RFC 9110, 5.6.2).
func headerName(s string) bool {
	return s != "" && len(s) <= maxHeaderName &&
		strings.Trim(s, "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") == ""
}

// tidy gives nil for options that change nothing.
func (h *HTTPOptions) tidy() *HTTPOptions {
	if h == nil {
		return nil
	}
	next := *h
	next.RequestHeaders, next.ResponseHeaders = h.RequestHeaders.tidy(), h.ResponseHeaders.tidy()
	if next == (HTTPOptions{}) {
		return nil
	}
	return &next
}

func (c *HeaderChanges) tidy() *HeaderChanges {
	if c == nil || len(c.Set)+len(c.Remove) == 0 {
		return nil
	}
	return c
}
