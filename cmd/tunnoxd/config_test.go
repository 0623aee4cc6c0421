package main

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
)

// everySetting is what all commands take, each once.
var everySetting = [][]string{serveSettings, commonSettings, {"redis-file", "control", "join-token-file", "node-cert", "node-key", "cluster-ca"}}

// loadConfig reads settings as a command would.
func loadConfig(t *testing.T, args, environ []string, file string) (*config, error) {
	t.Helper()
	c := &config{}
	flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
	c.flags(flags, everySetting...)
	if file != "" {
		path := filepath.Join(t.TempDir(), "tunnox.yaml")
		if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "--config", path)
	}
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	return c, c.load(flags, environ)
}

func TestSettingsComeFromFlagThenEnvironmentThenFileThenDefault(t *testing.T) {
	file := "api: 127.0.0.1:1\nlisten: 127.0.0.1:1\ndata: file\n"
	c, err := loadConfig(t, []string{"--api", "127.0.0.1:3"},
		[]string{"TUNNOX_API=127.0.0.1:2", "TUNNOX_LISTEN=127.0.0.1:2", "TUNNOX_LOG_FORMAT="}, file)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, got, want string }{
		{"flag over all", c.API, "127.0.0.1:3"},
		{"environment over file", c.Listen, "127.0.0.1:2"},
		{"file over default", c.Data, "file"},
		{"default", c.Metrics, "127.0.0.1:9090"},
		{"an empty variable is not set", c.LogFormat, "text"},
	} {
		if tt.got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, tt.got, tt.want)
		}
	}
}

func TestEverySettingWorksFromEnvironmentAndFile(t *testing.T) {
	values := map[string]string{
		"data": "d", "api": "127.0.0.1:0", "listen": "127.0.0.1:0", "ws": "127.0.0.1:0", "quic": "127.0.0.1:0", "metrics": "127.0.0.1:0",
		"postgres": "postgres://h/d", "redis": "redis://h", "redis-file": "r", "redis-ca": "r", "advertise-agents": "example.org:443", "advertise-api": "https://tunnox.example.org", "public-ports": "20000-20099", "public-address": "example.org",
		"http": "127.0.0.1:0", "https": "127.0.0.1:0", "http3": "127.0.0.1:0", "certificate": "c1,c2", "certificate-key": "k1,k2", "acme": "on", "acme-ca": "https://ca.example.org/dir", "acme-root": "r", "acme-dns-command": "dns", "resolver": "192.0.2.53:53", "base-domain": "t.example.org", "advertise-http": "https://*.t.example.org", "tls": "127.0.0.1:0", "advertise-tls": "https://*.t.example.org:444", "api-host": "t.example.org",
		"state": "127.0.0.1:0", "bridge": "127.0.0.1:0", "advertise-bridge": "example.org:50052", "control": "a:1,b:2",
		"join-token-file": "t", "node-cert": "c", "node-key": "k", "cluster-ca": "ca",
		"log-level": "debug", "log-format": "json", "pprof": "true", "drain": "3s", "bridge-idle": "1m", "usage-interval": "2s", "metrics-clients": "50", "metrics-mappings": "50", "access-log": "a",
		"jwt-key": "j1,j2", "first-invite": "off", "anonymous": "on", "anonymous-expiry": "48h", "held-grace": "2m", "webhook-networks": "10.1.0.0/16,::1/128", "webhook-http": "true",
		"cors-origins": "https://a.example,https://b.example", "trusted-proxies": "10.0.0.0/8,192.0.2.1", "proxy-protocol-from": "10.0.0.9", "rate-limit": "12.5", "rate-burst": "7",
	}
	(&config{}).declare().VisitAll(func(f *pflag.Flag) {
		value, ok := values[f.Name]
		if !ok {
			t.Errorf("%s: give this test a value for it", f.Name)
			return
		}
		fromEnv, err := loadConfig(t, nil, []string{variable(f.Name) + "=" + value}, "")
		if err != nil {
			t.Errorf("%s: %v", f.Name, err)
		}
		fromFile, err := loadConfig(t, nil, nil, f.Name+": "+value+"\n")
		if err != nil {
			t.Errorf("%s in a file: %v", f.Name, err)
		}
		fromFlag, err := loadConfig(t, []string{"--" + f.Name + "=" + value}, nil, "")
		if err != nil {
			t.Errorf("--%s: %v", f.Name, err)
		}
		if !reflect.DeepEqual(fromEnv, fromFlag) || !reflect.DeepEqual(fromFile, fromFlag) {
			t.Errorf("%s: environment gives %+v, file %+v, flag %+v", f.Name, fromEnv, fromFile, fromFlag)
		}
	})
}

func TestPlansAreDataOfTheFile(t *testing.T) {
	names := func(c *config) (all []string) {
		for _, p := range c.plans {
			all = append(all, p.Name)
		}
		return all
	}
	c, err := loadConfig(t, nil, nil, "data: d\n")
	if err != nil || !slices.Equal(names(c), []string{"free", "pro", "enterprise", "anonymous"}) {
		t.Errorf("without a section: %v, %v", names(c), err)
	}
	c, err = loadConfig(t, nil, nil, "plans:\n  small: {max_clients: 2, monthly_traffic_limit: null}\n  none: {}\ndata: d\n")
	if err != nil || !slices.Equal(names(c), []string{"small", "none", "anonymous"}) || c.Data != "d" {
		t.Fatalf("with a section: %v, %v", names(c), err)
	}
	if l := limitsOf(c.plans, "small"); l.MaxClients == nil || *l.MaxClients != 2 || l.MonthlyTrafficLimit != nil || l.MaxMappings != nil {
		t.Errorf("small is %+v", l)
	}
	_, err = loadConfig(t, nil, nil, "plans:\n  a: {max_client: 2}\n  b: 7\n  c: {max_clients: x}\n  d: {max_clients: -1}\n  a: {}\n")
	for _, want := range []string{`:2: plans: a: there is no limit "max_client"`, ":3: plans: b: want limits", ":4: plans: c: limits are whole",
		":5: plans: d: limits are 0 or more", `:6: plans: "a" is no name`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not say %q", err, want)
		}
	}
	if _, err := loadConfig(t, nil, nil, "plans: [a]\n"); err == nil || !strings.Contains(err.Error(), "want names with limits") {
		t.Errorf("a list of plans: %v", err)
	}
}

func TestUnknownSettingsAreNamed(t *testing.T) {
	_, err := loadConfig(t, nil, []string{"TUNNOX_POSTGRESS=x", "TUNNOX_LISTEN_ADDR=x"}, "lissten: x\napi: 127.0.0.1:0\napi: 127.0.0.1:1\ndata: [a]\n")
	for _, want := range []string{"TUNNOX_POSTGRESS: there is no such setting", "TUNNOX_LISTEN_ADDR: there is no such setting",
		":1: lissten: there is no such setting", ":3: api: is set twice", ":4: data: must have one value"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not say %q", err, want)
		}
	}
	// What others put into the environment is none of our business.
	if _, err := loadConfig(t, nil, []string{"TUNNOX_SERVICE_HOST=10.0.0.1", "TUNNOX_PORT_8080_TCP=tcp://x", "TUNNOX_TEST_REDIS=x", "TUNNOX_CLIENT_ID=1"}, ""); err != nil {
		t.Error(err)
	}
}

func TestAllFaultsAreListed(t *testing.T) {
	_, err := loadConfig(t, []string{"--api", "nowhere", "--listen", ":http", "--metrics", "0.0.0.0:99999", "--postgres", "mysql://u:secret@h/d",
		"--redis", "localhost:6379", "--log-level", "loud", "--log-format", "xml", "--advertise-agents", "h", "--drain", "-1s", "--data", "", "--pprof",
		"--state", "x", "--bridge", "y", "--advertise-bridge", "z", "--control", "a:1,b", "--bridge-idle", "0s"},
		[]string{}, "")
	for _, want := range []string{`--api: "nowhere"`, `--listen: ":http"`, `--metrics: "0.0.0.0:99999"`, "--postgres: want a URL", "--redis: want a URL",
		`--log-level: "loud"`, `--log-format: "xml"`, "--advertise-agents:", "--drain:", "--data:", "--pprof:",
		`--state: "x"`, `--bridge: "y"`, `--advertise-bridge: "z"`, `--control: "b"`, "--bridge-idle:"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error does not say %q:\n%v", want, err)
		}
	}
	if strings.Contains(err.Error(), "secret") {
		t.Errorf("the error shows a password: %v", err)
	}
}

func TestMalformedValuesNameTheirSource(t *testing.T) {
	_, err := loadConfig(t, nil, []string{"TUNNOX_DRAIN=soon"}, "pprof: perhaps\n")
	for _, want := range []string{"TUNNOX_DRAIN", "pprof in "} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not say %q", err, want)
		}
	}
}

func TestFilesThatAreNotSettings(t *testing.T) {
	for name, file := range map[string]string{"a list": "- a\n", "a word": "hello\n", "not YAML": "a: b: c\n"} {
		if _, err := loadConfig(t, nil, nil, file); err == nil {
			t.Errorf("%s: was accepted", name)
		}
	}
	for name, file := range map[string]string{"only comments": "# nothing\n", "an end of document": "---\n", "null": "null\n"} {
		if _, err := loadConfig(t, nil, nil, file); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	c := &config{}
	flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
	c.flags(flags, serveSettings, commonSettings)
	if err := c.load(flags, []string{"TUNNOX_CONFIG=/does/not/exist"}); err == nil {
		t.Error("a file that is not there was accepted")
	}
}

func TestOneEnvironmentServesBothPrograms(t *testing.T) {
	c, err := loadConfig(t, nil, []string{"TUNNOX_API=http://127.0.0.1:9000/"}, "")
	if err != nil || c.API != "127.0.0.1:9000" {
		t.Errorf("got %q, %v", c.API, err)
	}
	if c.Drain != 10*time.Second {
		t.Errorf("drain %v", c.Drain)
	}
}

// One shell may have the variables of both programs.
func TestVariablesOfTunnoxAreNoFaults(t *testing.T) {
	for _, name := range otherVariables {
		if _, err := loadConfig(t, nil, []string{name + "=x"}, ""); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	agent, err := os.ReadFile(filepath.Join("..", "tunnox", "agent.go"))
	if err != nil {
		t.Fatal(err)
	}
	flags := regexp.MustCompile(`f\.\w+Var\(&o\.\w+, "([a-z0-9-]+)"`).FindAllStringSubmatch(string(agent), -1)
	if len(flags) < 15 {
		t.Fatalf("found %d flags of tunnox agent", len(flags))
	}
	for _, flag := range flags {
		value := map[string]string{"log-level": "info", "log-format": "text"}[flag[1]]
		if value == "" {
			value = "x"
		}
		if _, err := loadConfig(t, nil, []string{variable(flag[1]) + "=" + value}, ""); err != nil && flag[1] != "state" {
			t.Errorf("a variable of tunnox agent: %v", err)
		}
	}
}
