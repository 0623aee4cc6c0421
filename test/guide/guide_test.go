package guide

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/programs"
	"github.com/tunnox-net/tunnox/test/services"
)

// Every page has its test, and every test its page.
func TestEveryPageIsFollowed(t *testing.T) {
	followed := map[string]bool{"README.md": true, "comparison.md": true}
	for _, page := range []string{"ssh.md", "database.md", "webhook.md", "folder.md", "game-server.md", "remote-desktop.md", "whole-network.md", "home-assistant.md", "several-servers.md", "end-to-end.md", "from-ngrok.md", "from-frp.md", "behind-nginx.md", "docker.md", "kubernetes.md", "cluster.md"} {
		followed[page] = true
	}
	pages, err := filepath.Glob(filepath.Join("..", "..", "docs", "guide", "*.md"))
	if err != nil || len(pages) < 5 {
		t.Fatalf("%d pages, %v", len(pages), err)
	}
	for _, page := range pages {
		if !followed[filepath.Base(page)] {
			t.Errorf("no test follows %s", filepath.Base(page))
		}
	}
}

func TestSSH(t *testing.T) {
	t.Parallel()
	w := newWalk(t, "ssh.md", "22", sshServer(t), "2222", freePort(t))
	w.ssh()
	w.follow()
}

func TestDatabase(t *testing.T) {
	t.Parallel()
	postgres := services.StartPostgres(t, services.PostgresOptions{TCP: true})
	_, port, err := net.SplitHostPort(postgres.Addr())
	if err != nil {
		t.Fatal(err)
	}
	follow(t, "database.md", "5432", port, "5433", freePort(t), "app", "postgres")
}

func TestEndToEnd(t *testing.T) {
	t.Parallel()
	postgres := services.StartPostgres(t, services.PostgresOptions{TCP: true})
	_, port, err := net.SplitHostPort(postgres.Addr())
	if err != nil {
		t.Fatal(err)
	}
	follow(t, "end-to-end.md", "5432", port, "5433", freePort(t), "app", "postgres")
}

func TestWebhook(t *testing.T) {
	t.Parallel()
	port := web(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "thanks for %s\n", body)
	})
	follow(t, "webhook.md", "3000", port)
}

func TestSeveralServers(t *testing.T) {
	t.Parallel()
	port := web(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "hello") })
	w := newWalk(t, "several-servers.md", "3000", port)
	for _, machine := range []string{"home", "laptop"} {
		if err := os.WriteFile(filepath.Join(w.home(machine), "password"), []byte("correct horse battery\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w.follow()
}

func TestFolder(t *testing.T) {
	t.Parallel()
	follow(t, "folder.md")
}

func TestGameServer(t *testing.T) {
	t.Parallel()
	game, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = game.Close() })
	go func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := game.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = game.WriteTo(append([]byte("pong "), buf[:n]...), from)
		}
	}()
	w := follow(t, "game-server.md", "34197", strconv.Itoa(game.LocalAddr().(*net.UDPAddr).Port))
	player, err := net.Dial("udp", w.here("192.0.2.10:20034"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = player.Close() }()
	buf := make([]byte, 1500)
	err = programs.Poll(limit, func() error {
		if _, err := player.Write([]byte("ping")); err != nil {
			return err
		}
		_ = player.SetReadDeadline(time.Now().Add(time.Second))
		n, err := player.Read(buf)
		if err == nil && string(buf[:n]) != "pong ping" {
			err = fmt.Errorf("the game answers %q", buf[:n])
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestWholeNetwork(t *testing.T) {
	t.Parallel()
	port := web(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "hello") })
	follow(t, "whole-network.md", "192.168.7.0/24", "127.0.0.0/8", "192.168.7.20:8123", "127.0.0.1:"+port, "1080", freePort(t))
}

func TestRemoteDesktop(t *testing.T) {
	t.Parallel()
	service := programs.Listen(t, programs.Echo)
	w := follow(t, "remote-desktop.md", "3389", strconv.Itoa(service.Port), "13389", freePort(t))
	desktop, err := net.Dial("tcp", w.here("127.0.0.1:13389"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = desktop.Close() }()
	_ = desktop.SetDeadline(time.Now().Add(limit))
	if _, err := desktop.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(desktop, make([]byte, 5)); err != nil {
		t.Error(err)
	}
}

func TestHomeAssistant(t *testing.T) {
	t.Parallel()
	follow(t, "home-assistant.md", "8123", web(t, says("assistant")), "8096", web(t, says("media")))
}

func TestFromNgrok(t *testing.T) {
	t.Parallel()
	follow(t, "from-ngrok.md", "3000", web(t, says("hello")))
}

func TestFromFRP(t *testing.T) {
	t.Parallel()
	w := newWalk(t, "from-frp.md", "22", sshServer(t), "3000", web(t, says("hello")))
	w.bind("20022", strconv.Itoa(w.ports+2))
	w.bind("20034", strconv.Itoa(w.ports+3))
	w.ssh()
	w.follow()
}

func freePort(t *testing.T) string { return strconv.Itoa(programs.FreePort(t)) }

func says(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, text) }
}

// web is a web server on this machine.
func web(t *testing.T, handler http.HandlerFunc) (port string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: handler}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close(); <-done })
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

// sshServer is OpenSSH's server with the key in sshKey as the only one.
func sshServer(t *testing.T) (port string) {
	t.Helper()
	dir := t.TempDir()
	hostKey := sshKey(t, dir, "host")
	port = freePort(t)
	config := fmt.Sprintf("Port %s\nListenAddress 127.0.0.1\nHostKey %s\nAuthorizedKeysFile %s\nStrictModes no\nPasswordAuthentication no\nPidFile none\nUsePAM no\n",
		port, hostKey, filepath.Join(sshKeys(t), "id.pub"))
	file := filepath.Join(dir, "sshd_config")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	if os.Getuid() == 0 {
		_ = os.MkdirAll("/run/sshd", 0o755) // where sshd of root locks itself in; the package makes it at boot
	}
	sshd, err := exec.LookPath("sshd")
	if err != nil {
		sshd = "/usr/sbin/sshd"
	}
	p := programs.Start(t, sshd, nil, "-D", "-e", "-f", file)
	p.Says(`Server listening on`, limit)
	t.Cleanup(p.Abandon)
	return port
}

var sshDir = sync.OnceValues(func() (string, error) { return os.MkdirTemp("", "tunnox-guide-") })

// sshKeys is the directory of the reader's key.
func sshKeys(t *testing.T) string {
	t.Helper()
	keysMu.Lock()
	defer keysMu.Unlock()
	dir, err := sshDir()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "id")); err != nil {
		services.AtExit(func() { _ = os.RemoveAll(dir) })
		sshKey(t, dir, "id")
	}
	return dir
}

var keysMu sync.Mutex

func sshKey(t *testing.T, dir, name string) string {
	t.Helper()
	file := filepath.Join(dir, name)
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", file).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v: %s", err, out)
	}
	return file
}

// ssh makes the reader's ssh use the key, and pi this machine's user.
func (w *walk) ssh() {
	me, err := user.Current()
	if err != nil {
		w.t.Fatal(err)
	}
	w.bind("pi", me.Username)
	w.tool("ssh", "exec /usr/bin/ssh -i "+filepath.Join(sshKeys(w.t), "id")+` -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR "$@"`)
}
