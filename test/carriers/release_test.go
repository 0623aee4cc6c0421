package carriers

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/programs"
)

// lastRelease is the commit before agents had a choice of transports.
const lastRelease = "a3b445d"

// Agents of the last release, which speak TLS and nothing else, carry bytes with this
// server. The test builds them from their commit.
func TestAgentsOfTheLastRelease(t *testing.T) {
	root, err := exec.Command("git", "rev-parse", "--show-toplevel").Output()
	if err != nil {
		t.Fatal(err)
	}
	if err := exec.Command("git", "cat-file", "-e", lastRelease+"^{commit}").Run(); err != nil {
		shallow, _ := exec.Command("git", "rev-parse", "--is-shallow-repository").Output()
		if strings.TrimSpace(string(shallow)) == "true" {
			t.Skipf("this clone is shallow and lacks the commit %s of the last release: git fetch --unshallow", lastRelease)
		}
	}
	source := t.TempDir()
	archive := exec.Command("sh", "-c", "git -C \"$1\" archive "+lastRelease+" | tar -x -C \"$2\"", "sh", strings.TrimSpace(string(root)), source)
	if out, err := archive.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s(the test needs the history of the repository)", err, out)
	}
	old := filepath.Join(t.TempDir(), "tunnox")
	build := exec.Command("go", "build", "-o", old, "./cmd/tunnox")
	build.Dir = source
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", lastRelease, err, out)
	}
	p := newPlace(t)
	port := p.mapping(t)
	for _, c := range []programs.Client{p.source, p.target} {
		file := filepath.Join(t.TempDir(), "auth-code")
		if err := os.WriteFile(file, []byte(c.AuthCode+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		agent := exec.Command(old, "agent", "--server", p.server.Agents, "--pin", p.server.Pin, "--state", t.TempDir(), "--client-id", id(c.ID), "--auth-code-file", file)
		if err := agent.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = agent.Process.Kill(); _ = agent.Wait() })
		p.WaitOnline(t, c.ID)
	}
	carries(t, port)
}

// The status of an agent says over which transport it is connected, since when, how long
// a round trip takes, and why the others gave no session.
func TestStatusTellsTheTransport(t *testing.T) {
	p := newPlace(t, "--quic", "off")
	state := t.TempDir()
	for transport, want := range map[string]string{"tls": "tls", "wss": "wss", "ws://": "ws"} {
		args := []string{"--server", p.server.Agents, "--transport", transport}
		if transport == "ws://" {
			args = []string{"--server", transport + p.server.Agents}
		}
		agent := p.start(t, p.source, nil, append(args, "--pin", p.server.Pin, "--state", state)...)
		p.WaitOnline(t, p.source.ID)
		status := programs.Start(t, "tunnox", nil, "agent", "status", "--state", state, "--client-id", id(p.source.ID), "--json")
		said := status.Says(`(?s)"transport": "(\w+)",\s+"lanes": \d+,\s+"round_trip_ms": ([0-9.]+),\s+"since": "(\S+)"`, 20*time.Second)
		if said[1] != want || !strings.HasPrefix(said[3], "20") {
			t.Errorf("over %s the status says %q", transport, said)
		}
		if err := agent.Stop(); err != nil {
			t.Error(err)
		}
	}
	proxied := newCompany(t, p.server.Agents, false)
	agent := p.start(t, p.source, []string{"HTTPS_PROXY=http://" + proxied.address}, "--server", away+":8080", "--transport", "quic", "--pin", p.server.Pin, "--state", state)
	agent.Says("the proxy for the server carries TCP only", 20*time.Second)
	status := programs.Start(t, "tunnox", nil, "agent", "status", "--state", state, "--client-id", id(p.source.ID))
	if code := status.Fails(20 * time.Second); code != 1 {
		t.Errorf("the status of an agent without a session ends with %d", code)
	}
	if said := status.Said(64 << 10); !regexp.MustCompile(`no session over quic at \S+.*: the proxy for the server carries TCP only`).MatchString(said) {
		t.Errorf("the status says %s", said)
	}
}

func id(n int64) string { return strconv.FormatInt(n, 10) }
