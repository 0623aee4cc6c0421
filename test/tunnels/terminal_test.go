package tunnels

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"unicode"

	"github.com/tunnox-net/tunnox/test/programs"
)

// tmux is a terminal that can be looked at and resized.
type tmux struct {
	t      *testing.T
	socket string
	bin    string
}

func startTmux(t *testing.T) *tmux {
	t.Helper()
	bin, err := exec.LookPath("tmux")
	if err != nil {
		t.Fatalf("%v: make setup installs it", err)
	}
	dir, err := os.MkdirTemp("", "tmux") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	x := &tmux{t: t, socket: filepath.Join(dir, "s"), bin: bin}
	server := programs.Start(t, bin, []string{"LC_ALL=C.UTF-8", "TERM=xterm"}, "-S", x.socket, "-f", "/dev/null", "-D")
	t.Cleanup(server.Abandon)
	programs.Eventually(t, limit, func() error { _, err := os.Stat(x.socket); return err })
	return x
}

func (x *tmux) run(args ...string) string {
	x.t.Helper()
	cmd := exec.Command(x.bin, append([]string{"-u", "-S", x.socket}, args...)...)
	cmd.Env = []string{"LC_ALL=C.UTF-8", "TERM=xterm", "PATH=" + os.Getenv("PATH")}
	out, err := cmd.CombinedOutput()
	if err != nil {
		x.t.Fatalf("tmux %v: %v: %s", args, err, out)
	}
	return string(out)
}

// show runs a command of a shell in a terminal of its own.
func (x *tmux) show(name, size, command string) {
	x.t.Helper()
	wide, high, _ := strings.Cut(size, "x")
	x.run("new-session", "-d", "-s", name, "-x", wide, "-y", high, "env LC_ALL= LC_CTYPE= "+command+"; echo STATUS $?; exec sleep 600")
}

func (x *tmux) resize(name, size string) {
	wide, high, _ := strings.Cut(size, "x")
	x.run("resize-window", "-t", name, "-x", wide, "-y", high)
}

// until waits until a terminal shows all that is named. The picture
// stays among the artefacts of the test (go test -artifacts).
func (x *tmux) until(name, picture string, shows ...string) {
	x.t.Helper()
	x.fills(name, picture, 0, shows...)
}

// fills is until for a program that uses so many lines of the terminal; 0 = any number.
func (x *tmux) fills(name, picture string, high int, shows ...string) {
	x.t.Helper()
	text := ""
	err := programs.Poll(limit, func() error {
		text = strings.TrimRight(x.run("capture-pane", "-p", "-t", name), "\n")
		if lines := strings.Count(text, "\n") + 1; high > 0 && lines != high {
			return fmt.Errorf("the last line is line %d of %d", lines, high)
		}
		joined := strings.Join(strings.Fields(text), " ")
		for _, want := range shows {
			if !regexp.MustCompile(want).MatchString(joined) {
				return fmt.Errorf("%q is not shown", want)
			}
		}
		return nil
	})
	if kept := os.WriteFile(filepath.Join(x.t.ArtifactDir(), picture+".txt"), []byte(text+"\n"), 0o600); kept != nil {
		x.t.Error(kept)
	}
	if err != nil {
		x.t.Fatalf("%s: %v:\n%s", picture, err, text)
	}
}

// TestATerminalShowsATunnel: people see address, state and requests on terminals of any
// size, with and without colours and UTF-8, and get their terminal back.
func TestATerminalShowsATunnel(t *testing.T) {
	t.Parallel()
	at := net.JoinHostPort("127.0.0.1", strconv.Itoa(programs.FreePort(t)))
	w := newWorld(t, "--http", at, "--base-domain", "t.example.org")
	laptop := w.machine("laptop")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	service := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/missing" {
			w.WriteHeader(http.StatusNotFound)
		}
		_, _ = io.WriteString(w, "hello")
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = service.Serve(l) }()
	t.Cleanup(func() { _ = service.Close(); <-done })
	port := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	get := func(path string) {
		t.Helper()
		req, err := http.NewRequest(http.MethodGet, "http://"+at+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = "shop.t.example.org"
		client := &http.Client{Timeout: limit, Transport: &http.Transport{DisableKeepAlives: true}}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
	}
	x := startTmux(t)
	program := filepath.Join(programs.Build(t), "tunnox") + " http " + port + " --host shop --state " + laptop.state

	x.show("colour", "80x24", "LANG=C.UTF-8 "+program)
	const url = `http://shop.t.example.org:\d+/`
	x.until("colour", "ready", "^"+url+" -> http://127.0.0.1:"+port+" online as client 6", `session \S+ over \S+, [0-9.]+ ms round trip`, "Ctrl-C ends it c: QR code$")
	get("/hook")
	get("/missing")
	x.fills("colour", "requests", 24, `Latest \S+ GET /missing 404 \S+ ms \S+ GET /hook 200 \S+ ms`, `sent .*[▁▂▃▄▅▆▇█] +[0-9.]+ B`)
	if !strings.Contains(x.run("capture-pane", "-p", "-e", "-t", "colour"), "\x1b[33m404") {
		t.Error("404 has no colour")
	}
	for _, size := range []string{"40x24", "40x10", "132x43", "25x7", "80x24"} {
		x.resize("colour", size)
		var wide, high int
		if _, err := fmt.Sscanf(size, "%dx%d", &wide, &high); err != nil {
			t.Fatal(err)
		}
		x.fills("colour", "resized-"+size, high, "^http://shop.t.example.*Ctrl-C ends it c: QR")
	}
	x.run("send-keys", "-t", "colour", "c")
	x.until("colour", "qr-code", "█▀▀|▄▄▄▄▄", url, "c: back$")
	x.run("send-keys", "-t", "colour", "c")
	_ = service.Close() // and with that nothing listens
	get("/")
	x.until("colour", "no-service", "warning nothing listens on 127.0.0.1:"+port+": start the service")
	x.run("send-keys", "-t", "colour", "C-c")
	x.until("colour", "ended", "^ended: "+url+", ", "STATUS 0$")

	x.show("plain", "40x24", "NO_COLOR=1 LANG=C "+program)
	x.until("plain", "ascii", "^http://shop.t.example.org", "Ctrl-C ends it c: QR code$")
	for _, r := range x.run("capture-pane", "-p", "-e", "-t", "plain") {
		if r > unicode.MaxASCII || r < ' ' && r != '\n' {
			t.Fatalf("without colours and UTF-8 there is %U", r)
		}
	}
	x.run("send-keys", "-t", "plain", "C-c")
	x.until("plain", "ascii-ended", "STATUS 0$")

	// In the background of a shell the terminal is another's.
	x.show("background", "80x24", `sh -c 'set -m; LANG=C.UTF-8 `+program+` & job=$!; sleep 0; read line; kill $job; wait $job'`)
	x.until("background", "background", "^ready: "+url+" -> ")
	x.run("send-keys", "-t", "background", "Enter")
	x.until("background", "background-ended", "STATUS 0$")
	w.left(0)
}
