package hosts

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/programs"
)

// A policy file decides what the agent reaches, by the protocol of the mapping. It is read
// again when it changes, and a refusal and a fault name their lines.
func TestPolicyFile(t *testing.T) {
	t.Parallel()
	for form, start := range map[string]func() *world{
		"embedded":       func() *world { return embedded(t) },
		"two forwarders": func() *world { return cluster(t, 1) },
	} {
		t.Run(form, func(t *testing.T) {
			w := start()
			w.t = t
			page := web(t, func(out http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(out, "page") })
			echo := programs.Listen(t, func(c *net.TCPConn) { programs.Echo(c) }).Port
			dir := t.TempDir()
			file := filepath.Join(dir, "policy.yaml")
			write := func(text string) {
				t.Helper()
				if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
				if err := os.Rename(file+".new", file); err != nil {
					t.Fatal(err)
				}
			}
			write(fmt.Sprintf("rules:\n  - allow: 127.0.0.1:%d\n    protocols: http\n  - deny: 127.0.0.1:%d\n", page, echo))
			w.agent.Kill()
			w.agent = w.exit.Join(t, w.api, w.target, "--policy", file)

			m := w.publish(page, nil)
			w.answers(m.URL, 200, "page")
			source := w.api.CreateClient(t, w.user.ID, "source")
			w.entry.Join(t, w.api, source)
			listen := func(to int) int {
				local := programs.FreePort(t)
				w.api.CreateMapping(t, programs.Mapping{UserID: w.user.ID, Protocol: "tcp", Source: source.ID, Target: w.target.ID, LocalPort: local, TargetHost: "127.0.0.1", TargetPort: to})
				return local
			}
			direct, echoed := listen(page), listen(echo)
			refused := func(local int, why string) {
				t.Helper()
				programs.Eventually(t, limit, func() error {
					if got, err := programs.Ask(local, []byte("hello")); err == nil && len(got) > 0 {
						return fmt.Errorf("heard %q", got)
					}
					if said := w.agent.Said(64 << 10); !strings.Contains(said, why) {
						return fmt.Errorf("the agent's log lacks %q: %s", why, said)
					}
					return nil
				})
			}
			passes := func(local int) {
				t.Helper()
				programs.Eventually(t, limit, func() error {
					got, err := programs.Ask(local, []byte("hello"))
					if err == nil && string(got) != "hello" {
						err = fmt.Errorf("heard %q", got)
					}
					return err
				})
			}
			refused(echoed, "policy.yaml, line 4")
			refused(direct, "no rule of policy.yaml allows it") // the web server, as tcp

			write(fmt.Sprintf("rules:\n  - allow: 127.0.0.1:%d\n", echo))
			passes(echoed)
			w.answers(m.URL, 502, "does not allow this service") // over the connection that was kept, too

			write("rules:\n  - alow: 127.0.0.1:1\n")
			w.agent.Says(`policy.yaml, line 2: a rule has no key .*alow.*did you mean .*allow`, limit)
			passes(echoed)
			_ = os.Remove(file)
			w.agent.Says(`the policy cannot be read; its rules stay as they were`, limit)
			passes(echoed)
			// What the rules allow goes on through a change, and what they do not ends.
			live := programs.Dial(t, echoed)
			_ = live.SetDeadline(time.Now().Add(limit))
			hear := func() (string, error) {
				b := make([]byte, 2)
				if _, err := io.WriteString(live, "hi"); err != nil {
					return "", err
				}
				_, err := io.ReadFull(live, b)
				return string(b), err
			}
			if got, err := hear(); err != nil || got != "hi" {
				t.Fatalf("heard %q, %v", got, err)
			}
			write(fmt.Sprintf("rules:\n  - allow: 127.0.0.1:%d\n    protocols: http\n  - allow: 127.0.0.1:%d\n", page, echo))
			w.answers(m.URL, 200, "page")
			if got, err := hear(); err != nil || got != "hi" {
				t.Fatalf("after a change that allows it: %q, %v", got, err)
			}
			write("rules: []\n")
			refused(echoed, "no rule of policy.yaml allows it")
			if n, err := live.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
				t.Errorf("a connection that is not allowed any more got %d bytes, %v", n, err)
			}

			p := programs.Start(t, "tunnox", nil, "agent", "--server", "127.0.0.1:1", "--pin", w.exit.Pin, "--state", t.TempDir(), "--policy", file+"x")
			if status := p.Fails(limit); status != 2 || !strings.Contains(p.Said(4<<10), "read the policy") {
				t.Errorf("without its policy the agent ended with %d: %s", status, p.Said(4<<10))
			}
			p = programs.Start(t, "tunnox", nil, "agent", "--server", "127.0.0.1:1", "--pin", w.exit.Pin, "--state", t.TempDir(), "--policy", file, "--allow", "*")
			if status := p.Fails(limit); status != 2 || !strings.Contains(p.Said(4<<10), "--policy excludes --allow") {
				t.Errorf("with two policies the agent ended with %d: %s", status, p.Said(4<<10))
			}
		})
	}
}
