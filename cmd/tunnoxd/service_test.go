package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tunnox-net/tunnox/daemon"
)

// A server is installed with the settings of its file, and with no secret of the
// environment; twice, or after a kill, it comes to the same.
func TestTheServerIsAService(t *testing.T) {
	dir := t.TempDir()
	var out bytes.Buffer
	var said, accounts []string
	dies := ""
	t.Setenv("TUNNOX_POSTGRES", "postgres://ann:secret-word@h/d")
	t.Setenv("TUNNOXD_API_KEY", "secret-word")
	v := &servicer{out: &out, role: "serve", program: "/usr/local/bin/tunnoxd",
		etc: filepath.Join(dir, "etc"), lib: "/var/lib", account: func(_ context.Context, name string) error { accounts = append(accounts, name); return nil },
		manager: &daemon.Systemd{Dir: filepath.Join(dir, "units"), Control: func(_ context.Context, arguments ...string) (string, error) {
			said = append(said, strings.Join(arguments, " "))
			if arguments[0] == dies {
				return "", errors.New("killed")
			}
			return "ActiveState=active\nSubState=running\nUnitFileState=enabled\nMainPID=7", nil
		}}}
	serve := roles["serve"]
	file := filepath.Join(v.etc, "tunnoxd.yaml")
	if err := v.install(t.Context(), serve); err == nil || !strings.Contains(err.Error(), "there are no settings in "+file) || exitCode(&out, err) != exitUsage {
		t.Fatal(err)
	}
	write := func(text string) {
		t.Helper()
		if err := errors.Join(os.MkdirAll(v.etc, 0o700), os.WriteFile(file, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	write("listen: nonsense\n")
	if err := v.install(t.Context(), serve); err == nil || !strings.Contains(err.Error(), "--listen") || len(said)+len(accounts) > 0 {
		t.Fatalf("%v, %v, %v", err, said, accounts)
	}
	write("drain: 20s\n")
	unit := func() string {
		t.Helper()
		b, err := os.ReadFile(filepath.Join(dir, "units", "tunnoxd.service"))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	for _, dies = range []string{"daemon-reload", "enable", "restart", ""} {
		if err := v.install(t.Context(), serve); (err != nil) != (dies != "") {
			t.Fatalf("%q: %v", dies, err)
		}
	}
	first := unit()
	for _, want := range []string{"ExecStart=/usr/local/bin/tunnoxd serve --data /var/lib/tunnox --config " + file + "\n", "\nUser=tunnox\n", "\nStateDirectory=tunnox\n", "\nCapabilityBoundingSet=\n", "\nTimeoutStopSec=55\n",
		"\nEnvironmentFile=-" + filepath.Join(v.etc, "tunnoxd.env") + "\n"} {
		if !strings.Contains(first, want) {
			t.Errorf("lacks %q:\n%s", want, first)
		}
	}
	if strings.Contains(first, "CAP_NET_BIND") || strings.Contains(first+out.String()+strings.Join(said, " "), "secret-word") {
		t.Errorf("a right that is not needed, or a secret:\n%s", first)
	}
	if err := v.install(t.Context(), serve); err != nil || unit() != first {
		t.Errorf("a second install: %v\n%s", err, unit())
	}
	write("http: :80\nbase-domain: t.example.org\n")
	if err := v.install(t.Context(), serve); err != nil || !strings.Contains(unit(), "CapabilityBoundingSet=\n") || !strings.Contains(unit(), "\nAmbientCapabilities=CAP_NET_BIND_SERVICE\n") {
		t.Errorf("%v\n%s", err, unit())
	}
	out.Reset()
	if err := v.status(t.Context(), serve); err != nil || !strings.Contains(out.String(), "active, running, process 7") {
		t.Errorf("%v\n%s", err, &out)
	}
	for _, want := range []string{"is removed; its data and settings stay", "there is no service tunnoxd"} {
		out.Reset()
		if err := v.uninstall(t.Context(), serve); err != nil || !strings.Contains(out.String(), want) {
			t.Errorf("%v\n%s", err, &out)
		}
	}
	if err := v.start(t.Context(), serve); err == nil || !strings.Contains(err.Error(), "run tunnoxd service install") {
		t.Error(err)
	}
	if err := v.status(t.Context(), serve); err == nil || !strings.Contains(err.Error(), "is not installed") {
		t.Error(err)
	}
	v.role = "forwarder"
	write("redis: redis://h\ncontrol: c:1\njoin-token-file: /etc/tunnox/join-token\n")
	if err := v.install(t.Context(), roles["forwarder"]); err != nil || accounts[len(accounts)-1] != "tunnox-forwarder" {
		t.Errorf("%v, %v", err, accounts)
	}
}
