package flow

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/tunnox-net/tunnox/test/programs"
	"github.com/tunnox-net/tunnox/test/services"
)

// composeFile runs services of the compose file without Docker: with their own command
// lines and variables, in one network of their own. Only paths are others, and the names
// of machines, which are this one.
type composeFile struct {
	t        *testing.T
	dir      string // stands for the root of each container
	env      map[string]string
	network  contained // the program whose network it is
	services map[string]composeService
}

type composeService struct {
	Entrypoint, Command []string
	Environment         map[string]string
	Healthcheck         struct{ Test []string }
}

func readCompose(t *testing.T, env map[string]string) *composeFile {
	t.Helper()
	text, err := os.ReadFile("../../deploy/docker/compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Services map[string]composeService }
	if err := yaml.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	f := &composeFile{t: t, dir: t.TempDir(), env: env, services: file.Services}
	for _, folder := range []string{"data", "run/join", "run/redis", "run/redis-ca", "run/redis-tls"} {
		if err := os.MkdirAll(filepath.Join(f.dir, folder), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	unshare, err := exec.LookPath("unshare")
	if err != nil {
		t.Fatal(err)
	}
	flags := []string{"--net"}
	if os.Getuid() != 0 { // a network needs a root, if only one of a namespace
		flags = append(flags, "--map-root-user")
	}
	const hold = "PATH=$PATH:/usr/sbin:/sbin; ip link set lo up && echo is up && exec sleep 600"
	f.network = contained{programs.Start(t, unshare, nil, append(flags, "sh", "-c", hold)...)}
	t.Cleanup(f.network.Abandon)
	f.network.Says("is up", allowed)
	return f
}

var interpolated = regexp.MustCompile(`\$\$|\$\{(\w+)(?::[?-]([^}]*))?\}`)

// as gives a text of the compose file as a container gets it here.
func (f *composeFile) as(text string) string {
	text = interpolated.ReplaceAllStringFunc(text, func(found string) string {
		if found == "$$" {
			return "$"
		}
		m := interpolated.FindStringSubmatch(found)
		if value, ok := f.env[m[1]]; ok {
			return value
		}
		if m[2] == "" || strings.Contains(found, ":?") {
			f.t.Errorf("the compose file needs %s", m[1])
		}
		return m[2]
	})
	return strings.NewReplacer("/run/", f.dir+"/run/", "/data/", f.dir+"/data/").Replace(text)
}

var machines = strings.NewReplacer("@redis:", "@127.0.0.1:", "control-1:", "127.0.0.1:", "control-2:", "127.0.0.2:")

// service gives the command line and the environment of a service. A setting in with
// takes the place of the service's own.
func (f *composeFile) service(name string, with map[string]string) (line, env []string) {
	f.t.Helper()
	s, ok := f.services[name]
	if !ok {
		f.t.Fatalf("there is no service %s", name)
	}
	for _, word := range slices.Concat(s.Entrypoint, s.Command) {
		line = append(line, f.as(word))
	}
	settings := map[string]string{}
	for setting, value := range s.Environment {
		settings[setting] = machines.Replace(f.as(value))
	}
	maps.Copy(settings, with)
	for setting, value := range settings {
		env = append(env, setting+"="+value)
	}
	return line, env
}

// completes runs a service that ends.
func (f *composeFile) completes(name string, line, env []string) {
	f.t.Helper()
	cmd := f.network.enter(f.t, line...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + f.dir}, env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		f.t.Fatalf("%s: %v: %s", name, err, out)
	}
}

// tunnoxd runs a service of ours that ends.
func (f *composeFile) tunnoxd(name string, with map[string]string) {
	f.t.Helper()
	line, env := f.service(name, with)
	f.completes(name, append([]string{programs.Build(f.t) + "/tunnoxd"}, line...), env)
}

// starts runs a service that stays.
func (f *composeFile) starts(name string, line, env []string) *programs.Process {
	f.t.Helper()
	enter := f.network.enter(f.t, line...)
	return programs.Start(f.t, enter.Path, env, enter.Args[1:]...)
}

// redis starts Redis, and waits until it is healthy.
func (f *composeFile) redis() *programs.Process {
	f.t.Helper()
	line, env := f.service("redis", nil)
	p := f.starts("redis", line, env)
	check := f.services["redis"].Healthcheck.Test
	if len(check) != 2 || check[0] != "CMD-SHELL" {
		f.t.Fatalf("the check of Redis is %q", check)
	}
	programs.Eventually(f.t, 2*allowed, func() error {
		cmd := f.network.enter(f.t, "timeout", "30", "sh", "-c", f.as(check[1]))
		cmd.Env = append([]string{"PATH=" + os.Getenv("PATH")}, env...)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	return p
}

// ask gives what Redis says to a user, over TLS.
func (f *composeFile) ask(user, password string, words ...string) string {
	f.t.Helper()
	line := []string{"timeout", "30", "redis-cli", "--tls", "--cacert", f.dir + "/run/redis-ca/ca.pem", "--no-auth-warning"}
	if user != "" {
		line = append(line, "--user", user, "--pass", password)
	}
	out, _ := f.network.enter(f.t, append(line, words...)...).CombinedOutput() // a refusal is an answer
	return string(out)
}

// api calls the REST API with the operator's key.
func (f *composeFile) api(method, path, body string) (map[string]any, error) {
	out, err := f.network.enter(f.t, "curl", "--silent", "--show-error", "--fail-with-body", "--max-time", "60", "--request", method, "--data", body,
		"--header", "Content-Type: application/json", "--header", "Authorization: Bearer "+f.env["TUNNOXD_API_KEY"], "http://127.0.0.1:9000/api/v1"+path).Output()
	var got map[string]any
	if err == nil {
		err = json.Unmarshal(out, &got)
	}
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w: %s", method, path, err, out)
	}
	return got, nil
}

// TestComposeSpeaksTLSWithRedis: the cluster of the compose file works with the Redis of
// the compose file, which speaks TLS only and lets nobody in without a name. Its users
// have the rights that their services need, and the users of forwarders outlive Redis.
func TestComposeSpeaksTLSWithRedis(t *testing.T) {
	t.Parallel()
	f := readCompose(t, map[string]string{"POSTGRES_PASSWORD": "pp", "REDIS_PASSWORD": "control-password", "REDIS_ADMIN_PASSWORD": "first-password",
		"TUNNOXD_API_KEY": strings.Repeat("0123456789", 4)})
	makeCertificate := func() string {
		line, env := f.service("redis-certificate", nil)
		f.completes("redis-certificate", line, env)
		return f.certificate()
	}
	if first, again := makeCertificate(), makeCertificate(); first != again {
		t.Error("a second start makes another certificate")
	}

	redis := f.redis()
	f.tunnoxd("redis-user-1", nil)
	if err := redis.Stop(); err != nil {
		t.Fatal(err)
	}
	f.env["REDIS_ADMIN_PASSWORD"] = "other-password"
	f.redis()
	f.refusals()

	postgres := map[string]string{"TUNNOX_POSTGRES": services.Postgres(t)} // over a Unix socket, which is in every network
	f.tunnoxd("migrate", postgres)
	tunnoxd := programs.Build(t) + "/tunnoxd"
	line, env := f.service("control-1", map[string]string{"TUNNOX_POSTGRES": postgres["TUNNOX_POSTGRES"], "TUNNOX_DATA": t.TempDir()})
	control := f.starts("control-1", append([]string{tunnoxd}, line...), env)
	control.Says("is running", 2*allowed)
	pin := control.Says(`--pin (sha256:[0-9a-f]{64})`, allowed)[1]
	f.tunnoxd("join", postgres)
	// Both have port 9090 in a container of their own.
	line, env = f.service("forwarder-1", map[string]string{"TUNNOX_METRICS": "127.0.0.1:9091", "TUNNOX_DATA": t.TempDir(), "TUNNOX_DRAIN": "0s"})
	f.starts("forwarder-1", append([]string{tunnoxd}, line...), env).Says("is running", 2*allowed)

	// A client is online for the control plane because the forwarder wrote so to Redis; the
	// forwarder knows the client from what the control plane wrote there.
	user, err := f.api("POST", "/users", `{"username":"ann","email":"ann@example.org"}`)
	if err != nil {
		t.Fatal(err)
	}
	client, err := f.api("POST", "/clients", fmt.Sprintf(`{"user_id":%.0f,"name":"desk"}`, user["user_id"]))
	if err != nil {
		t.Fatal(err)
	}
	code := filepath.Join(t.TempDir(), "code")
	if err := os.WriteFile(code, []byte(client["auth_code"].(string)), 0o600); err != nil {
		t.Fatal(err)
	}
	f.starts("agent", []string{programs.Build(t) + "/tunnox", "agent", "--server", "127.0.0.1:8080", "--pin", pin,
		"--client-id", fmt.Sprintf("%.0f", client["client_id"]), "--auth-code-file", code, "--state", filepath.Join(t.TempDir(), "state")}, nil)
	programs.Eventually(t, 2*allowed, func() error {
		got, err := f.api("GET", fmt.Sprintf("/clients/%.0f", client["client_id"]), "")
		if err == nil && got["status"] != "online" {
			err = fmt.Errorf("the client is %v", got["status"])
		}
		return err
	})
}

// certificate gives that of Redis, and checks that the authority vouches for it by the
// name that the compose file gives Redis, and that no other key is left.
func (f *composeFile) certificate() string {
	f.t.Helper()
	ca, err := os.ReadFile(f.dir + "/run/redis-ca/ca.pem")
	if err != nil {
		f.t.Fatal(err)
	}
	text, err := os.ReadFile(f.dir + "/run/redis-tls/redis.pem")
	if err != nil {
		f.t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	roots := x509.NewCertPool()
	if block == nil || !roots.AppendCertsFromPEM(ca) {
		f.t.Fatal("no certificates")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		f.t.Fatal(err)
	}
	if _, err := cert.Verify(x509.VerifyOptions{DNSName: "redis", Roots: roots}); err != nil {
		f.t.Error(err)
	}
	for folder, want := range map[string][]string{"redis-ca": {"ca.pem"}, "redis-tls": {"redis-key.pem", "redis.pem"}} {
		found, err := os.ReadDir(f.dir + "/run/" + folder)
		var names []string
		for _, entry := range found {
			names = append(names, entry.Name())
		}
		if err != nil || !slices.Equal(names, want) {
			f.t.Errorf("%s has %q, %v", folder, names, err)
		}
	}
	// Others than root read the one and not the other.
	for file, want := range map[string]os.FileMode{"redis-ca/ca.pem": 0o644, "redis-tls/redis-key.pem": 0o600} {
		if info, err := os.Stat(f.dir + "/run/" + file); err != nil || info.Mode().Perm() != want {
			f.t.Errorf("%s: %v, %v", file, info.Mode(), err)
		}
	}
	return string(text)
}

// refusals checks what Redis refuses.
func (f *composeFile) refusals() {
	f.t.Helper()
	if out, err := exec.Command("redis-cli", "--version").CombinedOutput(); err != nil {
		f.t.Fatalf("redis-cli: %v: %s", err, out)
	}
	if out, _ := f.network.enter(f.t, "timeout", "30", "redis-cli", "ping").CombinedOutput(); strings.Contains(string(out), "PONG") || strings.Contains(string(out), "NOAUTH") {
		f.t.Errorf("Redis speaks without TLS: %s", out)
	}
	control, admin := f.env["REDIS_PASSWORD"], f.env["REDIS_ADMIN_PASSWORD"]
	for _, c := range []struct {
		user, password, want string
		words                []string
	}{
		{"", "", "NOAUTH", []string{"ping"}},
		{"default", control, "WRONGPASS", []string{"ping"}},
		{"tunnox-control", control, "OK", []string{"set", "tunnox:probe", "1"}},
		{"tunnox-control", control, "NOPERM", []string{"acl", "list"}},
		{"tunnox-control", control, "NOPERM", []string{"config", "set", "dir", "/"}},
		{"tunnox-control", control, "NOPERM", []string{"module", "list"}},
		{"tunnox-admin", "first-password", "WRONGPASS", []string{"ping"}},
		{"tunnox-admin", admin, "NOPERM", []string{"get", "tunnox:probe"}},
		{"tunnox-admin", admin, "NOPERM", []string{"config", "get", "dir"}},
		{"tunnox-admin", admin, "tunnox-forwarder-forwarder-1", []string{"acl", "users"}},
	} {
		if out := f.ask(c.user, c.password, c.words...); !strings.Contains(out, c.want) {
			f.t.Errorf("Redis says to %q, who asks %q: %s", c.user, c.words, out)
		}
	}
}
