//go:build unix

package webroot

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// site is a directory with a secret beside it, and the handler of that directory.
func site(t *testing.T, h Handler) (*Handler, string) {
	t.Helper()
	base := t.TempDir()
	dir := filepath.Join(base, "www")
	for name, text := range map[string]string{
		"secret.txt": "SECRET", "wwwx/secret.txt": "SECRET",
		"www/index.html": "<h1>home</h1>", "www/a b.txt": "0123456789", "www/sub/deep/page.html": "<p>deep</p>", "www/sub/x.css": "p{}",
		"www/.env": "SECRET", "www/.git/config": "SECRET", "www/sub/.hidden/f.txt": "SECRET", "www/sub/<b>&.txt": "odd", "www/plain": "no extension",
	} {
		file := filepath.Join(base, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	h.Open = func() (*os.Root, error) { return os.OpenRoot(dir) }
	return &h, dir
}

func ask(t *testing.T, h http.Handler, method, path string, headers ...string) *http.Response {
	t.Helper()
	s := httptest.NewServer(h)
	defer s.Close()
	req, err := http.NewRequest(method, s.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.URL.Opaque = path // as it is, without a client that tidies it up
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := client.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	body, err := io.ReadAll(res.Body)
	_ = res.Body.Close()
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	res.Body = io.NopCloser(strings.NewReader(string(body)))
	return res
}

func body(res *http.Response) string { b, _ := io.ReadAll(res.Body); return string(b) }

// Files are answered as RFC 9110 says: whole, in ranges, by their tags, and without body.
func TestFiles(t *testing.T) {
	h, _ := site(t, Handler{})
	res := ask(t, h, "GET", "/a%20b.txt")
	tag := res.Header.Get("ETag")
	if res.StatusCode != 200 || body(res) != "0123456789" || tag == "" || res.Header.Get("Content-Type") != "text/plain; charset=utf-8" ||
		res.Header.Get("Accept-Ranges") != "bytes" || res.Header.Get("Last-Modified") == "" || res.Header.Get("X-Content-Type-Options") != "nosniff" {
		t.Fatalf("a file: %d %v", res.StatusCode, res.Header)
	}
	for _, c := range []struct {
		method, path string
		headers      []string
		status       int
		body         string
	}{
		{"HEAD", "/a%20b.txt", nil, 200, ""},
		{"GET", "/a%20b.txt", []string{"Range", "bytes=2-4"}, 206, "234"},
		{"GET", "/a%20b.txt", []string{"Range", "bytes=-2"}, 206, "89"},
		{"GET", "/a%20b.txt", []string{"Range", "bytes=10-"}, 416, "invalid range: failed to overlap\n"},
		{"GET", "/a%20b.txt", []string{"Range", "bytes=2-4", "If-Range", tag}, 206, "234"},
		{"GET", "/a%20b.txt", []string{"Range", "bytes=2-4", "If-Range", `"other"`}, 200, "0123456789"},
		{"GET", "/a%20b.txt", []string{"If-None-Match", tag}, 304, ""},
		{"GET", "/a%20b.txt", []string{"If-None-Match", `"other"`}, 200, "0123456789"},
		{"GET", "/", nil, 200, "<h1>home</h1>"},
		{"GET", "/index.html", nil, 200, "<h1>home</h1>"},
		{"GET", "/sub/deep/page.html?x=1", nil, 200, "<p>deep</p>"},
		{"GET", "/sub/", nil, 404, "There is no such file.\n"},
		{"GET", "/plain", nil, 200, "no extension"},
		{"GET", "/plain/", nil, 404, "There is no such file.\n"},
		{"GET", "/nothing", nil, 404, "There is no such file.\n"},
		{"POST", "/", nil, 405, "Files can be read here, and nothing else.\n"},
		{"DELETE", "/plain", nil, 405, "Files can be read here, and nothing else.\n"},
	} {
		res := ask(t, h, c.method, c.path, c.headers...)
		if got := body(res); res.StatusCode != c.status || got != c.body {
			t.Errorf("%s %s %v: %d %q, want %d %q", c.method, c.path, c.headers, res.StatusCode, got, c.status, c.body)
		}
	}
	if res := ask(t, h, "HEAD", "/a%20b.txt"); res.ContentLength != 10 || res.Header.Get("ETag") != tag {
		t.Errorf("HEAD: %d %v", res.ContentLength, res.Header)
	}
	for path, to := range map[string]string{"/sub": "./sub/", "/sub/deep?q=1": "./deep/?q=1"} {
		if res := ask(t, h, "GET", path); res.StatusCode != 301 || res.Header.Get("Location") != to {
			t.Errorf("%s: %d to %q, want %q", path, res.StatusCode, res.Header.Get("Location"), to)
		}
	}
}

// Nothing outside the directory is read, and nothing whose name begins with a dot.
func TestNothingEscapes(t *testing.T) {
	h, dir := site(t, Handler{Listing: true})
	link := func(to, name string) {
		t.Helper()
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	link("../secret.txt", "up")
	link(filepath.Join(filepath.Dir(dir), "secret.txt"), "absolute")
	link(filepath.Join(dir, "plain"), "inside-but-absolute")
	link("..", "parent")
	link("/", "everything")
	link("loop", "loop")
	link("plain", "good")
	link("/proc/self", "self")
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o644); err != nil {
		t.Fatal(err)
	}
	etc := []string{"/etc/passwd", "/../etc/passwd", "/../secret.txt", "/..%2fsecret.txt", "/%2e%2e/secret.txt", "/sub/../../secret.txt", "/..\\secret.txt", "/%5c..%5csecret.txt",
		"/up", "/absolute", "/inside-but-absolute", "/parent/secret.txt", "/parent/", "/parent/wwwx/secret.txt", "/everything/etc/passwd", "/self/environ", "/self/root/etc/passwd", "/loop", "/pipe",
		"/.env", "/.git/config", "/.git/", "/sub/.hidden/f.txt", "/sub/%2ehidden/f.txt", "/x/../.env", "/sub//../.env", "/plain%00.txt", "/a%20b.txt%00", "//etc/passwd", "/./.env", "/....//secret.txt",
		"/" + strings.Repeat("../", 60) + "etc/passwd", "/" + strings.Repeat("a", 5000), "/index.html/../../secret.txt"}
	for _, path := range etc {
		res := ask(t, h, "GET", path)
		if text := body(res); res.StatusCode != 404 || strings.Contains(text, "SECRET") || strings.Contains(text, "root:") {
			t.Errorf("%.80s: %d %.100q", path, res.StatusCode, text)
		}
	}
	if res := ask(t, h, "GET", "/good"); res.StatusCode != 200 || body(res) != "no extension" {
		t.Errorf("a link inside: %d", res.StatusCode)
	}
	if err := os.Remove(filepath.Join(dir, "index.html")); err != nil {
		t.Fatal(err)
	}
	list := body(ask(t, h, "GET", "/"))
	for _, hidden := range []string{"up", "absolute", "parent", "everything", "loop", "pipe", "self", ".env", ".git"} {
		if strings.Contains(list, ">"+hidden) {
			t.Errorf("the list has %s: %s", hidden, list)
		}
	}
	for _, shown := range []string{`<a href="./good">good</a>`, `<a href="./sub/">sub/</a>`, `<a href="./a%20b.txt">a b.txt</a>`} {
		if !strings.Contains(list, shown) {
			t.Errorf("the list lacks %s: %s", shown, list)
		}
	}
	if odd := body(ask(t, h, "GET", "/sub/")); !strings.Contains(odd, `<a href="./%3Cb%3E&amp;.txt">&lt;b&gt;&amp;.txt</a>`) || strings.Contains(odd, "hidden") || !strings.Contains(odd, "../") {
		t.Errorf("a list with an odd name: %s", odd)
	}
	all := *h
	all.DotFiles = true
	if res := ask(t, &all, "GET", "/.env"); res.StatusCode != 200 {
		t.Errorf("dot files that were asked for: %d", res.StatusCode)
	}
	if res := ask(t, &all, "GET", "/../secret.txt"); res.StatusCode != 404 {
		t.Errorf("with dot files: %d", res.StatusCode)
	}
}

// A directory that was put in the place of another is served at once, and one that has
// gone is said to be.
func TestTheDirectoryOfNow(t *testing.T) {
	h, dir := site(t, Handler{})
	if err := os.Rename(dir, dir+".old"); err != nil {
		t.Fatal(err)
	}
	if res := ask(t, h, "GET", "/"); res.StatusCode != 503 {
		t.Errorf("without its directory: %d", res.StatusCode)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "index.html"), []byte("new"), 0o644); err != nil {
		t.Fatal(err)
	}
	if res := ask(t, h, "GET", "/"); body(res) != "new" {
		t.Error("the old directory is served")
	}
}

// A path that cannot be read as one panics nowhere and reveals nothing.
func FuzzPaths(f *testing.F) {
	for _, path := range []string{"/", "/a b.txt", "/../x", "//", "/.", "/%", "/\x00", "/sub/..", "x", ""} {
		f.Add(path)
	}
	base := f.TempDir()
	dir := filepath.Join(base, "www")
	if err := os.Mkdir(dir, 0o755); err != nil {
		f.Fatal(err)
	}
	for _, name := range []string{"secret", "www/.secret"} {
		if err := os.WriteFile(filepath.Join(base, name), []byte("SECRET"), 0o644); err != nil {
			f.Fatal(err)
		}
	}
	h := &Handler{Listing: true, Open: func() (*os.Root, error) { return os.OpenRoot(dir) }}
	f.Fuzz(func(t *testing.T, path string) {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, &http.Request{Method: "GET", URL: &url.URL{Path: path}, Header: http.Header{}})
		if strings.Contains(w.Body.String(), "SECRET") {
			t.Errorf("%q reveals it", path)
		}
	})
}
