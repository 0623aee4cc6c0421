package hosts

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/cgi"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/tunnox-net/tunnox/test/programs"
)

// git clones, pushes more than it holds in memory, which goes in chunks, and clones what
// it has pushed.
func (w *world) git(t *testing.T) {
	dir := t.TempDir()
	git := func(args ...string) string {
		t.Helper()
		out, err := w.runGit(dir, args...)
		if err != nil {
			t.Fatalf("git %s: %v, %s", args[0], err, out)
		}
		return out
	}
	git("init", "-q", "--bare", "-b", "main", "server/app.git")
	git("-C", "server/app.git", "config", "http.receivepack", "true")
	var chunked atomic.Int64
	backend := &cgi.Handler{Path: filepath.Join(strings.TrimSpace(git("--exec-path")), "git-http-backend"),
		Env: []string{"GIT_PROJECT_ROOT=" + filepath.Join(dir, "server"), "GIT_HTTP_EXPORT_ALL=1"}}
	m := w.publish(web(t, func(out http.ResponseWriter, in *http.Request) {
		if in.ContentLength < 0 { // a CGI program must be told the length
			chunked.Add(1)
			body, err := io.ReadAll(in.Body)
			if err != nil {
				out.WriteHeader(http.StatusBadRequest)
				return
			}
			in.Body, in.ContentLength, in.TransferEncoding = io.NopCloser(bytes.NewReader(body)), int64(len(body)), nil
		}
		backend.ServeHTTP(out, in)
	}), nil)
	at, err := url.Parse(m.URL)
	if err != nil {
		t.Fatal(err)
	}
	// Its name leads nowhere: git goes to the address, and asks for the name.
	from := []string{"-c", "http.extraHeader=Host: " + at.Host, "-c", "http.postBuffer=65536"}
	address := "http://" + w.address + "/app.git"
	programs.Eventually(t, limit, func() error {
		out, err := w.runGit(dir, append(from, "ls-remote", address)...)
		if err != nil {
			return fmt.Errorf("git ls-remote: %w, %s", err, out)
		}
		return nil
	})
	git(append(from, "clone", "-q", address, "desk")...)
	file, err := os.Create(filepath.Join(dir, "desk", "large"))
	if err == nil {
		_, err = io.Copy(file, io.LimitReader(rand.NewChaCha8([32]byte{}), 4<<20))
	}
	if err != nil || file.Close() != nil {
		t.Fatal(err)
	}
	git("-C", "desk", "checkout", "-q", "-B", "main")
	git("-C", "desk", "add", "large")
	git("-C", "desk", "-c", "user.name=ann", "-c", "user.email=ann@example.org", "commit", "-q", "-m", "large")
	git(append(append([]string{"-C", "desk"}, from...), "push", "-q", "origin", "main")...)
	git(append(from, "clone", "-q", address, "again")...)
	if want, got := git("-C", "desk", "rev-parse", "HEAD"), git("-C", "again", "rev-parse", "HEAD"); got != want {
		t.Errorf("what was pushed is %s, and what is cloned %s", want, got)
	}
	git("-C", "again", "fsck", "--full")
	if chunked.Load() == 0 {
		t.Error("the push was not sent in chunks")
	}
}

// runGit runs git without any settings of the person who runs the tests.
func (w *world) runGit(dir string, args ...string) (string, error) {
	cmd := exec.CommandContext(w.t.Context(), "git", args...)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "GIT_CONFIG_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0", "LC_ALL=C"}
	out, err := cmd.CombinedOutput()
	return string(out), err
}
