package httpapi_test

import (
	"compress/gzip"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
)

// TestDocsPageNeedsNobodyElse follows every reference of the page. The policy
// then holds a browser to it: nothing but this server is allowed as a source.
func TestDocsPageNeedsNobodyElse(t *testing.T) {
	w := newWorld(t)
	page := w.send(w.request("GET", "/docs", nil)).want(200)
	policy := page.Header.Get("Content-Security-Policy")
	if !strings.Contains(policy, "default-src 'none'") || strings.Contains(policy, "http") || strings.Contains(policy, "unsafe-eval") ||
		strings.Contains(policy, "script-src 'self' 'unsafe") {
		t.Errorf("policy is %q", policy)
	}
	references := regexp.MustCompile(`(?:src|href)="([^"]+)"`).FindAllStringSubmatch(page.Text, -1)
	if len(references) < 4 {
		t.Fatalf("page refers to %v", references)
	}
	for _, ref := range references {
		if !strings.HasPrefix(ref[1], "/") || strings.HasPrefix(ref[1], "//") {
			t.Errorf("page refers to %s", ref[1])
			continue
		}
		w.send(w.request("GET", ref[1], nil)).want(200)
	}
	start := w.send(w.request("GET", "/docs/start.js", nil)).want(200)
	if !strings.Contains(start.Text, `url: "/openapi.json"`) || strings.Contains(start.Text, "://") {
		t.Errorf("start.js is %s", start.Text)
	}
}

func TestDocsFilesArePackedForWhoUnpacks(t *testing.T) {
	w := newWorld(t)
	plain := w.send(w.request("GET", "/docs/swagger-ui.css", nil)).want(200)
	packed := w.send(w.request("GET", "/docs/swagger-ui.css", nil, "Accept-Encoding", "br, gzip")).want(200)
	if packed.Header.Get("Content-Encoding") != "gzip" || plain.Header.Get("Content-Encoding") != "" {
		t.Fatalf("encodings %q and %q", packed.Header.Get("Content-Encoding"), plain.Header.Get("Content-Encoding"))
	}
	r, err := gzip.NewReader(strings.NewReader(packed.Text))
	if err != nil {
		t.Fatal(err)
	}
	unpacked, err := io.ReadAll(r)
	if err != nil || string(unpacked) != plain.Text || len(unpacked) < 50_000 {
		t.Errorf("unpacked %d bytes (%v), plain %d", len(unpacked), err, len(plain.Text))
	}
	if got := http.DetectContentType([]byte(plain.Text)); !strings.HasPrefix(got, "text/") {
		t.Errorf("the plain form is %s", got)
	}
}
