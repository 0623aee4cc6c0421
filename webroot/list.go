package webroot

import (
	"errors"
	"fmt"
	"html"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path"
	"slices"
	"strings"
)

// maxListed bounds a list, and the memory that making it takes.
const maxListed = 10_000

// list answers with what a directory has.
func (h *Handler) list(w http.ResponseWriter, r *http.Request, root *os.Root, name string, dir *os.File) {
	entries, err := dir.ReadDir(maxListed + 1)
	if err != nil && !errors.Is(err, io.EOF) { // which is how an empty directory ends
		refuse(w, err)
		return
	}
	more := len(entries) > maxListed
	if more {
		entries = entries[:maxListed]
	}
	var names []string
	for _, e := range entries {
		if shown, ok := h.shown(root, name, e); ok {
			names = append(names, shown)
		}
	}
	slices.Sort(names)
	var page strings.Builder
	title := html.EscapeString(path.Clean(r.URL.Path))
	fmt.Fprintf(&page, "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">"+
		"<title>%s</title></head>\n<body><h1>%[1]s</h1>\n<ul>\n", title)
	if path.Clean(r.URL.Path) != "/" {
		page.WriteString("<li><a href=\"../\">../</a></li>\n")
	}
	for _, n := range names {
		fmt.Fprintf(&page, "<li><a href=\"./%s\">%s</a></li>\n", html.EscapeString(escaped(n)), html.EscapeString(n))
	}
	page.WriteString("</ul>\n")
	if more {
		fmt.Fprintf(&page, "<p>There are more than %d.</p>\n", maxListed)
	}
	page.WriteString("</body></html>\n")
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'")
	w.Header().Set("Cache-Control", "no-cache")
	w.Header().Set("Content-Length", fmt.Sprint(page.Len()))
	if r.Method == http.MethodGet {
		_, _ = w.Write([]byte(page.String())) // a visitor who has gone needs no list
	}
}

// shown gives an entry as a list has it. What could not be served has no place there.
func (h *Handler) shown(root *os.Root, dir string, e fs.DirEntry) (string, bool) {
	name := e.Name()
	if !h.DotFiles && strings.HasPrefix(name, ".") {
		return "", false
	}
	kind := e.Type()
	if kind&fs.ModeSymlink != 0 {
		info, err := root.Stat(path.Join(dir, name))
		if err != nil {
			return "", false // it leads nowhere, or out of the directory
		}
		kind = info.Mode().Type()
	}
	switch {
	case kind.IsDir():
		return name + "/", true
	case kind.IsRegular():
		return name, true
	}
	return "", false
}

// escaped writes a name as a part of a URL's path; a slash at its end stays.
func escaped(name string) string {
	return strings.TrimPrefix((&url.URL{Path: "/" + name}).EscapedPath(), "/")
}
