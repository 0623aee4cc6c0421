package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/tunnox-net/tunnox/daemon"
)

// systemd stands for systemctl: it notes what it is told, and dies at one step if it has
// to.
type systemd struct {
	said  []string
	dies  string // the first word of the step at which install is killed
	state string // what show says
}

func (s *systemd) control(_ context.Context, arguments ...string) (string, error) {
	s.said = append(s.said, strings.Join(arguments, " "))
	if s.dies != "" && arguments[0] == s.dies {
		return "", errors.New("killed")
	}
	return s.state, nil
}

// machine is one with accounts and systemd.
func machine(t *testing.T, control *systemd, environ ...string) (v *servicer, out *bytes.Buffer) {
	t.Helper()
	dir := t.TempDir()
	out = &bytes.Buffer{}
	return &servicer{surroundings: surroundings{environ: append(environ, "HOME="+filepath.Join(dir, "root")), stdin: strings.NewReader(""), stdout: out, stderr: out, context: new(string), services: filepath.Join(dir, "lib")},
		manager: &daemon.Systemd{Dir: filepath.Join(dir, "units"), Control: control.control}, root: true, machines: true,
		program: "/usr/local/bin/tunnox",
		homes:   func(account string) (string, error) { return filepath.Join(dir, account), nil }}, out
}

// files gives every file below a directory with its content and mode.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() || strings.HasSuffix(path, ".lock") {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		b, err := os.ReadFile(path)
		all[strings.TrimPrefix(path, dir)] = fmt.Sprintf("%v %s", info.Mode().Perm(), b)
		return err
	})
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return all
}

// Whoever ran sudo has joined: the service runs as that account, with its identity where
// it is. The secret is in no unit and no command.
func TestAServiceRunsAsWhoJoined(t *testing.T) {
	control := &systemd{}
	v, out := machine(t, control, "SUDO_USER=ann")
	home, _ := v.homes("ann")
	state := filepath.Join(home, ".local", "state", "tunnox")
	joinedAs(t, state, "tunnox.example.org:8080", "", "")
	secret := regexp.MustCompile(`tnx_[A-Za-z0-9_-]+`).FindString(files(t, state)["/client.json"])
	if err := v.prepared(t.Context(), func(ctx context.Context) error {
		return v.install(ctx, []string{"--allow", "10.0.0.5:5432", "--name", "50% of $HOME"})
	}); err != nil {
		t.Fatal(err)
	}
	unit := files(t, v.manager.(*daemon.Systemd).Dir)["/tunnox-agent.service"]
	for _, want := range []string{"-rw-r--r-- ", "ExecStart=/usr/local/bin/tunnox agent --state " + state + ` --allow 10.0.0.5:5432 --name "50%% of $$HOME"` + "\n",
		"\nUser=ann\n", "\nProtectHome=read-only\n", "\nReadWritePaths=\"" + state + "\"\n", "\nNoNewPrivileges=yes\n", "\nCapabilityBoundingSet=\n", "\nRestartPreventExitStatus=3\n"} {
		if !strings.Contains(unit, want) {
			t.Errorf("the unit lacks %q:\n%s", want, unit)
		}
	}
	if secret == "" || strings.Contains(unit+out.String()+strings.Join(control.said, " "), secret) {
		t.Errorf("the secret %q is shown, or there is none", secret)
	}
	if got := strings.Join(control.said, "; "); got != "daemon-reload; enable tunnox-agent.service; restart tunnox-agent.service" {
		t.Errorf("systemd was told %s", got)
	}
	if !strings.Contains(out.String(), "as ann") {
		t.Error(out)
	}
}

// An install that is killed at any step, and one after it, come to what one install comes
// to; and the identity is in one place only.
func TestAnInstallIsRepeatedAfterAKill(t *testing.T) {
	state := func(v *servicer) map[string]string { return files(t, filepath.Dir(v.services)) }
	once := func(v *servicer) error {
		return v.prepared(t.Context(), func(ctx context.Context) error { return v.install(ctx, nil) })
	}
	begin := func(control *systemd) *servicer {
		v, _ := machine(t, control)
		joinedAs(t, filepath.Join(filepath.Dir(v.services), "root", ".local", "state", "tunnox"), "tunnox.example.org:8080", "", "")
		return v
	}
	for _, dies := range []string{"daemon-reload", "enable", "restart"} {
		control := &systemd{dies: dies}
		v := begin(control)
		if once(v) == nil {
			t.Fatalf("killed at %s, install succeeds", dies)
		}
		control.dies = ""
		if err := once(v); err != nil {
			t.Fatalf("after a kill at %s: %v", dies, err)
		}
		after := state(v)
		if err := once(v); err != nil {
			t.Fatal(err)
		}
		if again := state(v); fmt.Sprint(again) != fmt.Sprint(after) {
			t.Errorf("a second install changes\n%v\nto\n%v", after, again)
		}
		if after["/lib/tunnox-agent/client.json"] == "" || after["/root/.local/state/tunnox/client.json"] != "" || len(after) != 2 {
			t.Errorf("after a kill at %s: %v", dies, after)
		}
		if p, err := v.place(""); err != nil || p.dir != filepath.Join(v.services, "tunnox-agent") || p.name != "tunnox.example.org" {
			t.Errorf("root's commands look in %+v, %v", p, err)
		}
		if unit := after["/units/tunnox-agent.service"]; !strings.Contains(unit, "\nDynamicUser=yes\nStateDirectory=tunnox-agent\n") || !strings.Contains(unit, "\nProtectHome=yes\n") {
			t.Error(unit)
		}
	}
	// The copy was made and the original not removed yet.
	v := begin(&systemd{})
	from := filepath.Join(filepath.Dir(v.services), "root", ".local", "state", "tunnox")
	b, err := os.ReadFile(filepath.Join(from, "client.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := keepFile(filepath.Join(v.services, "tunnox-agent", "client.json"), b); err != nil {
		t.Fatal(err)
	}
	if err := once(v); err != nil || len(state(v)) != 2 {
		t.Errorf("%v: %v", err, state(v))
	}
	// Another identity is there: nobody chooses for the owner.
	joinedAs(t, from, "other.example.org:8080", "", "")
	other := strings.Replace(string(b), "600000000", "600000009", 1)
	if err := keepFile(filepath.Join(v.services, "tunnox-agent", "client.json"), []byte(other)); err != nil {
		t.Fatal(err)
	}
	if err := once(v); err == nil || !strings.Contains(err.Error(), "which one should the service be?") {
		t.Error(err)
	}
}

func TestAServiceIsRemovedTwice(t *testing.T) {
	control := &systemd{state: "ActiveState=active\nSubState=running\nUnitFileState=enabled\nMainPID=42\nResult=success"}
	v, out := machine(t, control, "SUDO_USER=ann")
	home, _ := v.homes("ann")
	joinedAs(t, filepath.Join(home, ".local", "state", "tunnox"), "tunnox.example.org:8080", "", "")
	do := func(what func(context.Context) error) (string, error) {
		out.Reset()
		err := v.prepared(t.Context(), what)
		return out.String(), err
	}
	if _, err := do(v.status); err == nil || !strings.Contains(err.Error(), "run tunnox service install") {
		t.Error(err)
	}
	if _, err := do(func(ctx context.Context) error { return v.tell(ctx, daemon.Manager.Start, "started") }); err == nil || !strings.Contains(err.Error(), "not installed") {
		t.Error(err)
	}
	if _, err := do(func(ctx context.Context) error { return v.install(ctx, nil) }); err != nil {
		t.Fatal(err)
	}
	if text, err := do(v.status); err != nil || !strings.Contains(text, "active, running, process 42\nstarts with machine  yes") {
		t.Errorf("%v\n%s", err, text)
	}
	control.state = "ActiveState=failed\nSubState=failed\nUnitFileState=enabled\nMainPID=0\nResult=exit-code"
	if text, err := do(v.status); err == nil || !strings.Contains(text, "failed, failed, exit-code") || !strings.Contains(err.Error(), "journalctl -u tunnox-agent") {
		t.Errorf("%v\n%s", err, text)
	}
	if text, err := do(v.uninstall); err != nil || !strings.Contains(text, "is removed; the identity stays") {
		t.Errorf("%v\n%s", err, text)
	}
	if text, err := do(v.uninstall); err != nil || !strings.Contains(text, "there is no service tunnox-agent") {
		t.Errorf("%v\n%s", err, text)
	}
	if left := files(t, v.manager.(*daemon.Systemd).Dir); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	if left := files(t, home); len(left) != 1 {
		t.Errorf("the identity is gone: %v", left)
	}
}

func TestAServiceNeedsAnIdentityAndFlagsThatExist(t *testing.T) {
	for _, tt := range []struct {
		environ, says string
		extra         []string
	}{
		{"", "there is no identity for the service in", nil},
		{"SUDO_USER=ann", "run tunnox join CODE first", nil},
		{"", "unknown flag: --nonsense", []string{"--nonsense"}},
		{"", "--state: the service has the identity of a context", []string{"--state", "x"}},
		{"", `"word" is no flag`, []string{"word"}},
	} {
		control := &systemd{}
		v, _ := machine(t, control, tt.environ)
		err := v.prepared(t.Context(), func(ctx context.Context) error { return v.install(ctx, tt.extra) })
		if err == nil || !strings.Contains(err.Error(), tt.says) || exitCode(&bytes.Buffer{}, err) != exitUsage || len(control.said) > 0 || len(files(t, filepath.Dir(v.services))) > 0 {
			t.Errorf("%+v: %v, systemd was told %v", tt, err, control.said)
		}
	}
}

// Each context has a service of its own, and a user needs no rights.
func TestAUserHasServicesOfTheirContexts(t *testing.T) {
	control := &systemd{}
	v, _ := machine(t, control)
	v.root, v.machines = false, false
	v.manager.(*daemon.Systemd).User = true
	base := filepath.Join(filepath.Dir(v.services), "root", ".local", "state", "tunnox")
	joinedAs(t, base, "work.example.org:8080", "", "")
	joinedAs(t, filepath.Join(base, contextsDir, "home"), "home.example.org:8080", "", "")
	*v.context = "home"
	if err := v.prepared(t.Context(), func(ctx context.Context) error { return v.install(ctx, nil) }); err != nil {
		t.Fatal(err)
	}
	unit := files(t, v.manager.(*daemon.Systemd).Dir)["/tunnox-agent-home.service"]
	if !strings.Contains(unit, "agent --state "+filepath.Join(base, contextsDir, "home")+"\n") || strings.Contains(unit, "User=") || !strings.Contains(unit, "WantedBy=default.target") {
		t.Error(unit)
	}
	if control.said[0] != "--user daemon-reload" {
		t.Error(control.said)
	}
}

// systemd itself reads the units, where its tool is there.
func TestSystemdReadsTheUnits(t *testing.T) {
	verify, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Log("there is no systemd-analyze here; make setup-check installs it")
		return
	}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	v, _ := machine(t, &systemd{})
	v.program = program
	joinedAs(t, filepath.Join(filepath.Dir(v.services), "root", ".local", "state", "tunnox"), "tunnox.example.org:8080", "", "")
	if err := v.prepared(t.Context(), func(ctx context.Context) error { return v.install(ctx, []string{"--name", `a "b" \c`}) }); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), verify, "verify", filepath.Join(v.manager.(*daemon.Systemd).Dir, "tunnox-agent.service")).CombinedOutput()
	if strings.Contains(string(out), "tunnox-agent.service:") || err != nil && strings.Contains(string(out), "Failed to load") {
		t.Errorf("%v: %s", err, out)
	}
}
