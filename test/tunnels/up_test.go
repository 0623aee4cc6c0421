package tunnels

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/programs"
)

// TestUp: all tunnels of a file come and go with it. What is the same in it goes on, with
// its connections; a file with a fault changes nothing.
func TestUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	laptop, desk := w.machine("laptop"), w.reachable("desk")
	desk.start("agent")
	web, db := service(t, "web"), service(t, "db")
	file := filepath.Join(t.TempDir(), "tunnox.yaml")
	write := func(format string, args ...any) {
		t.Helper()
		if err := os.WriteFile(file, []byte("tunnels:\n"+fmt.Sprintf(format, args...)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("  web: {tcp: %d, prot: 1}\n", web)
	if said := laptop.refused(2, "up", "--file", file); !strings.Contains(said, "tunnox.yaml, line 2") || !strings.Contains(said, `did you mean "port"?`) {
		t.Errorf("of a key that there is not is said %q", said)
	}
	listen := programs.FreePort(t)
	write("  web: {tcp: %d}\n  db: {forward: %d, to: \"desk:%d\"}\n", web, listen, db)
	check := laptop.start("up", "--file", file, "--check")
	if err := check.Wait(limit); err != nil || !strings.Contains(check.Said(1<<10), "2 tunnels") {
		t.Errorf("a check said %q, %v", check.Said(1<<10), err)
	}
	w.left(0)

	up := laptop.start("up", "--file", file)
	address := up.Says(`(?m)^web: ready: (\S+) -> `, limit)[1]
	up.Says(fmt.Sprintf(`(?m)^db: ready: 127.0.0.1:%d -> desk:%d$`, listen, db), limit)
	answers(t, address, "web")
	answers(t, fmt.Sprintf("127.0.0.1:%d", listen), "db")
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(2 * limit))
	greeting := make([]byte, len("web:"))
	if _, err := io.ReadFull(conn, greeting); err != nil {
		t.Fatal(err)
	}

	write("  web: {tcp: many}\n")
	up.Says(`the tunnels stay as they are:(.|\n)*line 2: web: "many" is no service`, limit)
	answers(t, fmt.Sprintf("127.0.0.1:%d", listen), "db")

	write("  web: {tcp: %d}\n  notes: {tcp: %d}\n", web, db)
	answers(t, up.Says(`(?m)^notes: ready: (\S+) -> `, limit)[1], "db")
	silent(t, fmt.Sprintf("127.0.0.1:%d", listen))
	w.left(2)
	if _, err := io.WriteString(conn, "still"); err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(conn); err != nil || string(got) != "still" {
		t.Errorf("a connection through what stayed gave %q, %v", got, err)
	}
	if said := up.Said(1 << 20); strings.Count(said, "web: ready") != 1 {
		t.Errorf("what stayed was made anew:\n%s", said)
	}
	if err := up.Stop(); err != nil {
		t.Error(err)
	}
	w.left(0)
}

// TestForwardListensWhereItsOwnerSays: an agent listens for a server on loopback only; who
// starts a program on the machine may say more.
func TestForwardListensWhereItsOwnerSays(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	laptop, desk := w.machine("laptop"), w.reachable("desk")
	desk.start("agent").Says("connected", limit)
	port := programs.FreePort(t)
	forward := laptop.tunnel("forward", fmt.Sprintf("0.0.0.0:%d", port), fmt.Sprintf("desk:%d", service(t, "db")))
	answers(t, fmt.Sprintf("127.0.0.1:%d", port), "db")
	forward.end(t)
}

// TestNames: machines are listed by the names that tunnox forward takes.
func TestNames(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	laptop := w.machine("laptop")
	w.machine("desk")
	laptop.start("agent").Says("connected", limit)
	list := laptop.start("agent", "clients")
	if err := list.Wait(limit); err != nil {
		t.Fatal(err)
	}
	if said := list.Said(1 << 10); !strings.Contains(said, "laptop  600000000") || !strings.Contains(said, "desk    600000001") {
		t.Errorf("it lists %q", said)
	}
}
