package httpapi

import (
	"bytes"
	"compress/gzip"
	_ "embed" // for the two files below
	"io"
	"net/http"
	"strings"

	"github.com/swaggest/swgui/v5/static"
)

// The docs page is Swagger UI out of the binary: it works on a machine that
// reaches nothing but us, and nobody else learns who reads it.

//go:embed docs/index.html
var docsPage []byte

//go:embed docs/start.js
var docsStart []byte

// docsPolicy lets the page load what this server serves and nothing else.
// Styles are allowed inline because Swagger UI sets style attributes; pictures
// as data because its style sheet holds them so.
const docsPolicy = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; " +
	"font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

func (a *api) registerDocs() {
	a.mux.Handle("GET /{$}", http.RedirectHandler("/docs", http.StatusFound))
	a.docsFile("/docs", "text/html; charset=utf-8", docsPage, false)
	a.docsFile("/docs/start.js", "text/javascript; charset=utf-8", docsStart, false)
	for name, contentType := range map[string]string{
		"swagger-ui-bundle.js": "text/javascript; charset=utf-8",
		"swagger-ui.css":       "text/css; charset=utf-8",
	} {
		packed, err := static.FS.ReadFile(name + ".gz")
		if err != nil {
			panic("httpapi: the binary lacks its docs page: " + err.Error()) // it is embedded
		}
		a.docsFile("/docs/"+name, contentType, packed, true)
	}
	icon, err := static.FS.ReadFile("favicon-32x32.png")
	if err != nil {
		panic("httpapi: the binary lacks its docs page: " + err.Error())
	}
	a.docsFile("/docs/favicon.png", "image/png", icon, false)
}

// docsFile serves one file. Those that are kept packed are sent so to everybody
// who can unpack them.
func (a *api) docsFile(path, contentType string, content []byte, packed bool) {
	a.mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Type", contentType)
		h.Set("Content-Security-Policy", docsPolicy)
		h.Set("Cache-Control", "no-cache")
		body := io.Reader(bytes.NewReader(content))
		if packed {
			h.Set("Vary", "Accept-Encoding")
			if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
				h.Set("Content-Encoding", "gzip")
			} else if unpacked, err := gzip.NewReader(body); err == nil {
				body = unpacked
			}
		}
		// The error is that of a write to a connection that is gone.
		_, _ = io.Copy(w, body)
	})
}
