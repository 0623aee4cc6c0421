package hosts

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/programs"
)

// allowed starts the target's agent anew, with more that it may reach.
func (w *world) allowed(entries ...string) {
	w.t.Helper()
	w.agent.Kill()
	w.agent = w.exit.Join(w.t, w.api, w.target, "--allow", strings.Join(entries, ","))
}

// at is the body that makes a mapping to a target, as its short form names it.
func at(target string) map[string]any {
	return map[string]any{"target": target, "target_host": nil, "target_port": nil}
}

// socketService serves connections at a unix socket, until the test ends.
func socketService(t testing.TB, path string) net.Listener {
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// A unix socket is the service of http and tcp mappings. It is refused unless the agent's
// owner named it.
func TestUnixSockets(t *testing.T) {
	t.Parallel()
	everywhere(t, func(t *testing.T, w *world) {
		dir := t.TempDir()
		web, echo := filepath.Join(dir, "web.sock"), filepath.Join(dir, "echo.sock")
		server := &http.Server{Handler: http.HandlerFunc(func(out http.ResponseWriter, in *http.Request) {
			fmt.Fprintf(out, "%s for %s", in.URL, in.Host)
		})}
		served := make(chan struct{})
		pages, l := socketService(t, web), socketService(t, echo)
		go func() { defer close(served); _ = server.Serve(pages) }()
		t.Cleanup(func() { _ = server.Close(); <-served })
		echoed := make(chan struct{})
		go func() {
			defer close(echoed)
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = io.Copy(c, c) // until the end of what comes, which is told on
				_ = c.Close()
			}
		}()
		t.Cleanup(func() { _ = l.Close(); <-echoed })

		m := w.publish(0, at("unix:"+web))
		w.answers(m.URL, 502, "does not allow this service")
		w.allowed("unix:"+web, "unix:"+echo)
		w.answers(m.URL+"x?y", 200, "/x?y for "+m.Host)

		source := w.api.CreateClient(t, w.user.ID, "source")
		w.entry.Join(t, w.api, source)
		local := programs.FreePort(t)
		var made struct {
			ID           int64 `json:"mapping_id"`
			Target, Host string
			Port         int `json:"target_port"`
		}
		w.api.Do(t, http.MethodPost, "/api/v1/mappings", map[string]any{"user_id": w.user.ID, "source_client_id": source.ID, "target_client_id": w.target.ID,
			"protocol": "tcp", "local_port": local, "target": "unix:" + echo}, &made)
		if made.Target != "unix:"+echo || made.Host != "" || made.Port != 0 {
			t.Errorf("created %+v", made)
		}
		heard := func(want string) {
			t.Helper()
			programs.Eventually(t, limit, func() error {
				got, err := programs.Ask(local, []byte("hello"))
				if err == nil && string(got) != want {
					err = fmt.Errorf("heard %q", got)
				}
				return err
			})
		}
		heard("hello")
		// Another kind of service, and back, in a change that names it only.
		path := fmt.Sprintf("/api/v1/mappings/%d", made.ID)
		other := programs.Listen(t, func(c *net.TCPConn) { _, _ = io.WriteString(c, "tcp:"); programs.Echo(c) }).Port
		w.api.Do(t, http.MethodPut, path, map[string]any{"target": fmt.Sprintf("127.0.0.1:%d", other)}, nil)
		heard("tcp:hello")
		w.api.Do(t, http.MethodPut, path, map[string]any{"target": "unix:" + echo}, nil)
		heard("hello")

		for _, wrong := range []string{"unix:run/x.sock", "unix:", "unix:/a/../b", "unix:/" + strings.Repeat("x", 107), "file:/srv", "nothing"} {
			w.api.Refused(t, http.StatusUnprocessableEntity, "invalid", http.MethodPut, path, map[string]any{"target": wrong})
		}
		// Nobody at a socket that is allowed.
		_ = os.Remove(echo)
		programs.Eventually(t, limit, func() error {
			if got, err := programs.Ask(local, []byte("hello")); err == nil && len(got) > 0 {
				return fmt.Errorf("heard %q", got)
			}
			return nil
		})
	})
}

// A directory is served by the target agent: whole files, ranges, tags, no list unless
// asked for, and nothing outside it for whoever asks with whatever bytes.
func TestDirectory(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		base := t.TempDir()
		dir := filepath.Join(base, "www")
		big := strings.Repeat("0123456789abcdef", 256<<10) // 4 MiB
		for name, text := range map[string]string{"www/index.html": "<h1>home</h1>", "www/big.bin": big, "www/sub/a.txt": "alpha", "www/.env": "SECRET", "secret.txt": "SECRET"} {
			file := filepath.Join(base, name)
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		for name, to := range map[string]string{"up": "../secret.txt", "away": base, "root": "/"} {
			if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
		m := w.publish(0, at("file:"+dir))
		w.answers(m.URL, 502, "does not allow this service")
		w.allowed("file:" + base + "/www")
		w.answers(m.URL, 200, "<h1>home</h1>")
		w.answers(m.URL+"sub/a.txt", 200, "alpha")
		w.answers(m.URL+"sub/", 404, "no such file")

		if status, text, err := w.get(m.URL + "big.bin"); status != 200 || text != big || err != nil {
			t.Errorf("a big file: %d, %d bytes, %v", status, len(text), err)
		}
		if status, text, err := w.get(m.URL+"big.bin", "Range", "bytes=16-19"); status != 206 || text != "0123" || err != nil {
			t.Errorf("a range: %d %.50q, %v", status, text, err)
		}
		head, err := w.visitors.Head(m.URL + "big.bin")
		if err != nil || head.ContentLength != int64(len(big)) || head.Header.Get("ETag") == "" {
			t.Fatalf("HEAD: %+v, %v", head, err)
		}
		_ = head.Body.Close()
		if status, text, err := w.get(m.URL+"big.bin", "If-None-Match", head.Header.Get("ETag")); status != 304 || text != "" || err != nil {
			t.Errorf("a file that the visitor has: %d, %d bytes, %v", status, len(text), err)
		}

		// As bytes, because a client would tidy them up.
		for _, path := range []string{"/../secret.txt", "/..%2fsecret.txt", "/%2e%2e/secret.txt", "/sub/../../secret.txt", "/up", "/away/secret.txt", "/root/etc/passwd", "//etc/passwd",
			"/.env", "/%2eenv", "/sub/../.env", "/..%5csecret.txt", "/.%00/secret.txt", "/sub/%2e%2e/%2e%2e/secret.txt"} {
			status, text := rawGet(t, w.address, m.Host+"."+baseDomain, path)
			if status != 404 && status != 400 || strings.Contains(text, "SECRET") || strings.Contains(text, "root:") {
				t.Errorf("%s: %d %.100q", path, status, text)
			}
		}

		w.api.Do(t, http.MethodPut, fmt.Sprintf("/api/v1/mappings/%d", m.ID), map[string]any{"files": map[string]any{"listing": true, "dot_files": true}}, nil)
		w.answers(m.URL+"sub/", 200, `<a href="./a.txt">a.txt</a>`)
		w.answers(m.URL+".env", 200, "SECRET")

		// Below what is allowed a link leads nowhere else, and beside it nothing is served.
		out := w.publish(0, at("file:"+dir+"/away"))
		w.answers(out.URL, 502, "")
		beside := w.publish(0, at("file:"+base))
		w.answers(beside.URL, 502, "does not allow this service")
		below := w.publish(0, at("file:"+dir+"/sub"))
		w.answers(below.URL+"a.txt", 200, "alpha")
	})
}

// rawGet asks for a path as it is.
func rawGet(t testing.TB, address, host, path string) (status int, answer string) {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(limit))
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", path, host); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(c)
	line, err := in.ReadString('\n')
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	rest, _ := io.ReadAll(in) // a reset at the end takes nothing from what came
	if f := strings.Fields(line); len(f) > 1 {
		status, _ = strconv.Atoi(f[1])
	}
	return status, string(rest)
}
