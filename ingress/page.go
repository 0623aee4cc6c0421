package ingress

import (
	"encoding/json"
	"html/template"
	"net/http"
	"strings"
)

// reasonHeader is on our own answers and on no answer of a service, so that a visitor or
// a monitor can tell them apart.
const reasonHeader = "Tunnox-Error"

// page is one of our own answers.
type page struct {
	status   int
	code     string
	sentence string
}

var (
	noSuchSite  = page{http.StatusNotFound, "no_such_host", "Nothing is published at this address."}
	badHost     = page{http.StatusBadRequest, "bad_host", "The request names no host that could be published here."}
	badFraming  = page{http.StatusBadRequest, "bad_framing", "The request can be read in more than one way. Its head must have lines that end with CR LF, names with the colon right behind them, no folded lines, and one Content-Length or Transfer-Encoding: chunked."}
	absoluteURI = page{http.StatusBadRequest, "absolute_form", "This server is no proxy: ask for a path, and name the host in the Host header."}
	misdirected = page{http.StatusMisdirectedRequest, "misdirected", "The request names another host than the TLS connection. Open a new connection for it."}
	onlySecure  = page{http.StatusForbidden, "https_required", "This address is served over https only. Secrets that were sent without it can be read by others: replace them."}
	unavailable = page{http.StatusServiceUnavailable, "unavailable", "What is published at this address is not known at the moment. Try again soon."}
	noUpgrade   = page{http.StatusBadGateway, "no_upgrade", "The service behind this address speaks HTTP/2 only, and WebSocket is carried over HTTP/1.1."}
	broken      = page{http.StatusBadGateway, "service_broken", "The service behind this address ended the connection or gave no valid answer."}
	timedOut    = page{http.StatusGatewayTimeout, "service_timeout", "The service behind this address did not answer in time."}
)

var htmlPage = template.Must(template.New("page").Parse(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{.Status}} {{.Text}}</title>
<style>body{font:16px/1.5 system-ui,sans-serif;max-width:36rem;margin:15vh auto;padding:0 1rem;color-scheme:light dark}
h1{font-size:1.25rem}small{opacity:.7}</style></head>
<body><h1>{{.Text}}</h1><p>{{.Sentence}}</p><p><small>{{.Status}} · {{.Code}}</small></p></body></html>
`))

// write answers with the page, as HTML, JSON or plain text as Accept asks. No cache keeps
// the page, because a service that is away now may be back in a second.
func (p page) write(w http.ResponseWriter, in *http.Request) {
	h := w.Header()
	h.Set(reasonHeader, p.code)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	text := http.StatusText(p.status)
	switch accepted(in.Header.Values("Accept")) {
	case "text/html":
		h.Set("Content-Type", "text/html; charset=utf-8")
		w.WriteHeader(p.status)
		_ = htmlPage.Execute(w, map[string]any{"Status": p.status, "Text": text, "Sentence": p.sentence, "Code": p.code})
	case "application/json":
		h.Set("Content-Type", "application/problem+json")
		w.WriteHeader(p.status)
		_ = json.NewEncoder(w).Encode(map[string]any{"status": p.status, "title": text, "detail": p.sentence, "code": p.code})
	default:
		h.Set("Content-Type", "text/plain; charset=utf-8")
		w.WriteHeader(p.status)
		_, _ = w.Write([]byte(p.sentence + "\n"))
	}
}

// accepted gives the first media type in Accept that we can write. A visitor that names
// none, such as curl, gets plain text.
func accepted(accept []string) string {
	for kind := range strings.SplitSeq(strings.ToLower(strings.Join(accept, ",")), ",") {
		kind, _, _ = strings.Cut(kind, ";")
		switch kind = strings.TrimSpace(kind); {
		case kind == "text/html", kind == "application/xhtml+xml":
			return "text/html"
		case kind == "application/json", strings.HasPrefix(kind, "application/") && strings.HasSuffix(kind, "+json"):
			return "application/json"
		case kind == "text/plain":
			return "text/plain"
		}
	}
	return "text/plain"
}
