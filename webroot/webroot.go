// Package webroot serves a directory of this machine over HTTP, to read.
//
// Its limit: nothing outside the directory is ever opened, whatever a visitor asks for and
// whatever links there are in it (os.Root sees to that). It writes nothing, lists nothing
// unless asked to, and runs nothing.
package webroot

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path"
	"strings"
	"syscall"
)

// Handler answers GET and HEAD from a directory. A path with a slash at its end is a
// directory, which has its index.html for an answer.
type Handler struct {
	// Open opens the directory. It is called for every request, so that a directory that
	// was put in the place of another is served at once.
	Open func() (*os.Root, error)
	// Listing lists what a directory without index.html has. Without it that is 404.
	Listing bool
	// DotFiles serves what has a name that begins with a dot too.
	DotFiles bool
}

// ServeHTTP implements [http.Handler].
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "Files can be read here, and nothing else.", http.StatusMethodNotAllowed)
		return
	}
	name, ok := h.name(r.URL.Path)
	if !ok {
		refuse(w, fs.ErrNotExist)
		return
	}
	root, err := h.Open()
	if err != nil {
		http.Error(w, "The directory that is served here cannot be opened.", http.StatusServiceUnavailable)
		return
	}
	defer root.Close()
	f, info, err := open(root, name)
	if err != nil {
		refuse(w, err)
		return
	}
	defer f.Close()
	slash := strings.HasSuffix(r.URL.Path, "/")
	switch {
	case info.IsDir() && !slash:
		redirect(w, r)
	case info.IsDir():
		h.index(w, r, root, name, f)
	case slash: // a file has nothing below it
		refuse(w, fs.ErrNotExist)
	default:
		serve(w, r, f, info)
	}
}

// name gives the name in the directory of what a path asks for, without a slash before
// it. It reports false for what is not there for anybody.
func (h *Handler) name(asked string) (string, bool) {
	if !strings.HasPrefix(asked, "/") || strings.ContainsAny(asked, "\x00\\") {
		return "", false
	}
	name := strings.TrimPrefix(path.Clean(asked), "/")
	if name == "" {
		return ".", true
	}
	if !h.DotFiles {
		for part := range strings.SplitSeq(name, "/") {
			if strings.HasPrefix(part, ".") {
				return "", false
			}
		}
	}
	return name, true
}

// open opens a file or a directory, and nothing else: reading from a pipe or a device
// would wait, or do something. O_NONBLOCK keeps opening a pipe from waiting.
func open(root *os.Root, name string) (*os.File, fs.FileInfo, error) {
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() && !info.IsDir() {
		err = fs.ErrNotExist
	}
	if err != nil {
		_ = f.Close()
		return nil, nil, err
	}
	return f, info, nil
}

func serve(w http.ResponseWriter, r *http.Request, f *os.File, info fs.FileInfo) {
	// As strong as If-Range needs it: no two contents of a file have one length and one
	// time, unless somebody sets the time.
	w.Header().Set("ETag", fmt.Sprintf(`"%x-%x"`, info.ModTime().UnixNano(), info.Size()))
	http.ServeContent(w, r, info.Name(), info.ModTime(), f)
}

// index answers for a directory.
func (h *Handler) index(w http.ResponseWriter, r *http.Request, root *os.Root, name string, dir *os.File) {
	f, info, err := open(root, path.Join(name, "index.html"))
	switch {
	case err == nil && info.Mode().IsRegular():
		defer f.Close()
		serve(w, r, f, info)
		return
	case err == nil:
		_ = f.Close()
	case !errors.Is(err, fs.ErrNotExist):
		refuse(w, err) // there is one, and it cannot be read: a list would say what it hides
		return
	}
	if !h.Listing {
		refuse(w, fs.ErrNotExist)
		return
	}
	h.list(w, r, root, name, dir)
}

// redirect adds the slash to the path of a directory. The place is a relative one, so
// that it is right behind whatever stands before this server.
func redirect(w http.ResponseWriter, r *http.Request) {
	to := "./" + escaped(path.Base(r.URL.Path)) + "/"
	if r.URL.RawQuery != "" {
		to += "?" + r.URL.RawQuery
	}
	w.Header().Set("Location", to)
	w.WriteHeader(http.StatusMovedPermanently)
}

// refuse answers for what cannot be served. What leads out of the directory is not there.
func refuse(w http.ResponseWriter, err error) {
	switch {
	case errors.Is(err, fs.ErrPermission):
		http.Error(w, "This file cannot be read.", http.StatusForbidden)
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		http.Error(w, "Too many files are open. Try again in a moment.", http.StatusServiceUnavailable)
	default:
		http.Error(w, "There is no such file.", http.StatusNotFound)
	}
}
