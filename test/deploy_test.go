package test

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// seen says which secrets each role may see, whatever deploys it. A forwarder is
// reachable from the Internet: an attacker who controls one gets these secrets and no
// more. "redis" is the address of Redis with the user of control planes, "redis-admin"
// with the one that makes users, and "redis-forwarder" with the one that is made.
var seen = map[string][]string{
	"control":    {"api-key", "postgres", "redis"},
	"migrate":    {"postgres"},
	"join-token": {"api-key", "postgres", "join-token"},
	"redis-user": {"redis-admin", "redis-forwarder"},
	"forwarder":  {"redis-forwarder", "join-token"},

	// Programs of others, by the names of their services.
	"postgres":          {"postgres"},
	"redis":             {"redis", "redis-admin", "redis-key"},
	"redis-certificate": {"redis-key"},
}

// secretVariables are those of the compose file's .env.
var secretVariables = map[string]string{"POSTGRES_PASSWORD": "postgres", "REDIS_PASSWORD": "redis", "REDIS_ADMIN_PASSWORD": "redis-admin", "TUNNOXD_API_KEY": "api-key"}

// secretFolders are folders with secrets, where they are mounted.
var secretFolders = map[string]string{"/run/join": "join-token", "/run/redis": "redis-forwarder", "/run/redis-tls": "redis-key"}

// openFolders are folders that need no secrecy, or that a service has for itself alone.
var openFolders = []string{dataFolder, "/run/redis-ca", "/data", "/var/lib/postgresql/data"}

// secretSettings are settings whose value is a secret or the path of one.
var secretSettings = map[string]string{"TUNNOXD_API_KEY": "api-key", "TUNNOXD_API_KEY_BEFORE": "api-key",
	"TUNNOX_POSTGRES": "postgres", "TUNNOX_REDIS_FILE": "redis-forwarder", "TUNNOX_JOIN_TOKEN_FILE": "join-token"}

// redisUsers are the users of Redis in URLs of TUNNOX_REDIS, and which secret that is.
var redisUsers = map[string]string{"tunnox-control": "redis", "tunnox-admin": "redis-admin", "tunnox-forwarder": "redis-forwarder"}

var redisURL = regexp.MustCompile(`^rediss://([a-z-]+):.`)

// redisSecret tells which secret a URL of Redis is. It must have TLS, and a user with a name.
func redisSecret(t *testing.T, where, url string) string {
	t.Helper()
	m := redisURL.FindStringSubmatch(url)
	if m == nil || redisUsers[m[1]] == "" {
		t.Errorf("%s reaches Redis at %s: it must have TLS, and one of the users %q", where, url, slices.Sorted(maps.Keys(redisUsers)))
		return ""
	}
	return redisUsers[m[1]]
}

const dataFolder = "/var/lib/tunnox"

func allow(t *testing.T, where, role string, secrets []string) {
	t.Helper()
	may, known := seen[role]
	if !known {
		t.Errorf("%s has the role %q, of which nobody has said what it may see", where, role)
	}
	for _, secret := range secrets {
		if !slices.Contains(may, secret) {
			t.Errorf("%s, a %s, sees %s and may see %q", where, role, secret, may)
		}
	}
}

// files gives the files of a folder of deploy. There must be some.
func files(t *testing.T, pattern string) []string {
	t.Helper()
	found, err := filepath.Glob("../deploy/" + pattern)
	if err != nil || len(found) == 0 {
		t.Fatalf("%s: %d files, %v", pattern, len(found), err)
	}
	return found
}

// composed is the compose file's description of a service.
type composed struct {
	Image       string
	Entrypoint  []string
	Command     []string
	Ports       []string
	Environment map[string]string
	Volumes     []string
	Secrets     []any
	Configs     []any
	EnvFile     any      `yaml:"env_file"`
	VolumesFrom []string `yaml:"volumes_from"`
}

// role gives what the service is: a role of ours, or the service's name.
func (c composed) role(name string) string {
	if c.Image == "tunnox" {
		return c.Command[0]
	}
	return name
}

var variableOf = regexp.MustCompile(`\$\{(\w+)`)

// secrets gives the secrets that a service gets.
func (c composed) secrets(t *testing.T, where string) (secrets []string) {
	t.Helper()
	if c.EnvFile != nil || c.VolumesFrom != nil || c.Secrets != nil || c.Configs != nil {
		t.Errorf("%s gets secrets in a way that this test does not look into", where)
	}
	for setting, value := range c.Environment {
		secret, known := secretSettings[setting]
		switch {
		case known:
			secrets = append(secrets, secret)
		case setting == "TUNNOX_REDIS":
			secrets = append(secrets, redisSecret(t, where, value))
		}
	}
	words := slices.Concat(c.Entrypoint, c.Command, slices.Collect(maps.Values(c.Environment)))
	for _, m := range variableOf.FindAllStringSubmatch(strings.Join(words, "\n"), -1) {
		if secret, ok := secretVariables[m[1]]; ok {
			secrets = append(secrets, secret)
		} else if m[1] != "ADVERTISE" {
			t.Errorf("%s gets the variable %s, and this test does not know it", where, m[1])
		}
	}
	for _, v := range c.Volumes {
		at := strings.Split(v, ":")[1]
		if secret, ok := secretFolders[at]; ok {
			secrets = append(secrets, secret)
		} else if !slices.Contains(openFolders, at) {
			t.Errorf("%s has %s, and this test does not know it", where, at)
		}
	}
	return secrets
}

func TestComposeGivesEachRoleItsSecretsOnly(t *testing.T) {
	for _, file := range files(t, "docker/compose*.yaml") {
		services := servicesOf(t, file)
		writers := map[string][]string{} // of a volume: the roles that write it
		forwarders := 0
		for name, s := range services {
			where, role := file+": "+name, s.role(name)
			allow(t, where, role, s.secrets(t, where))
			if role == "forwarder" {
				forwarders++
			}
			for _, v := range s.Volumes {
				if volume, _, _ := strings.Cut(v, ":"); !strings.HasSuffix(v, ":ro") {
					writers[volume] = append(writers[volume], role+" "+name)
				}
			}
		}
		if forwarders == 0 {
			t.Fatalf("%s has no forwarder", file)
		}
		for name, s := range services {
			if s.role(name) != "forwarder" {
				continue
			}
			makers := map[string]string{dataFolder: "forwarder " + name, "/run/join": "join-token join", "/run/redis-ca": "redis-certificate redis-certificate",
				"/run/redis": "redis-user " + strings.Replace(name, "forwarder", "redis-user", 1)}
			for _, v := range s.Volumes {
				volume, at, _ := strings.Cut(v, ":")
				if strings.HasPrefix(volume, "/") || strings.HasPrefix(volume, ".") {
					t.Errorf("%s: %s gets the folder %s of the machine", file, name, volume)
				}
				if by := writers[volume]; !slices.Equal(by, []string{makers[strings.TrimSuffix(at, ":ro")]}) {
					t.Errorf("%s: %s gets the volume %s, which %q write", file, name, volume, by)
				}
			}
		}
	}
}

func servicesOf(t *testing.T, file string) map[string]composed {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var compose struct{ Services map[string]composed }
	if err := yaml.Unmarshal(text, &compose); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return compose.Services
}

// Redis has no port beside the one with TLS, and none on the machine; each of ours that
// speaks with it knows its authority. The image has the folders that ours write: a volume
// at another folder belongs to root. (test/flow runs all of it.)
func TestComposeReachesRedisOverTLSOnly(t *testing.T) {
	image, err := os.ReadFile("../deploy/docker/Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files(t, "docker/compose*.yaml") {
		services, speak := servicesOf(t, file), 0
		redis := services["redis"]
		if line := strings.Join(redis.Command, " "); !strings.Contains(line, "redis-server --port 0 --tls-port 6379 ") || strings.Count(line, "port ") != 2 || redis.Ports != nil {
			t.Errorf("%s: Redis has other ports than one with TLS: %s %v", file, line, redis.Ports)
		}
		for name, s := range services {
			if s.Image != "tunnox" {
				continue
			}
			if s.Environment["TUNNOX_REDIS"] != "" || s.Environment["TUNNOX_REDIS_FILE"] != "" {
				speak++
				if s.Environment["TUNNOX_REDIS_CA"] != "/run/redis-ca/ca.pem" || !slices.Contains(s.Volumes, "redis-ca:/run/redis-ca:ro") {
					t.Errorf("%s: %s does not get the authority of Redis", file, name)
				}
			}
			for _, v := range s.Volumes {
				at := strings.Split(v, ":")[1]
				if !strings.HasSuffix(v, ":ro") && !bytes.Contains(image, []byte("--chown=65532:65532 /out/data "+at+"\n")) {
					t.Errorf("%s: %s writes %s, which the image does not have", file, name, at)
				}
			}
		}
		if speak < 5 {
			t.Errorf("%s: %d services speak with Redis", file, speak)
		}
	}
}

// Kubernetes and systemd get the address of Redis from their operator: what we tell them
// to write has TLS and a user with a name.
func TestExamplesReachRedisOverTLS(t *testing.T) {
	found := 0
	for _, pattern := range []string{"kubernetes/*", "docker/*", "systemd/*", "../docs/guide/*.md", "../docs/*.md"} {
		for _, file := range files(t, pattern) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, url := range regexp.MustCompile(`\brediss?://[^\s'"`+"`"+`]+`).FindAllString(string(text), -1) {
				found++
				redisSecret(t, file, url)
			}
		}
	}
	if found < 8 {
		t.Errorf("only %d addresses of Redis", found)
	}
}

// manifest is the part of a Kubernetes object that concerns secrets.
type manifest struct {
	Kind     string
	Metadata struct{ Name string }
	Spec     struct {
		Template struct {
			Spec struct {
				InitContainers, Containers []container
				Volumes                    []map[string]any
			}
		}
	}
}

type container struct {
	Args []string
	Env  []struct {
		Name, Value string
		ValueFrom   map[string]map[string]any `yaml:"valueFrom"`
	}
	EnvFrom []map[string]any `yaml:"envFrom"`
}

func TestKubernetesGivesEachRoleItsSecretsOnly(t *testing.T) {
	roles := map[string]bool{}
	for _, file := range files(t, "kubernetes/*.yaml") {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for d := yaml.NewDecoder(bytes.NewReader(text)); ; {
			var m manifest
			if err := d.Decode(&m); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			pod := m.Spec.Template.Spec
			for _, c := range slices.Concat(pod.InitContainers, pod.Containers) {
				where := file + ": " + m.Metadata.Name
				role := c.Args[0]
				roles[role] = true
				var secrets []string
				for _, e := range c.Env {
					if ref := e.ValueFrom["secretKeyRef"]; ref != nil {
						secrets = append(secrets, ref["key"].(string))
					} else if e.Name == "TUNNOX_REDIS" {
						t.Errorf("%s has an address of Redis that is not of a Secret", where)
					} else if secret, ok := secretSettings[e.Name]; ok {
						secrets = append(secrets, secret)
					}
				}
				for _, from := range c.EnvFrom {
					if from["configMapRef"] == nil {
						t.Errorf("%s gets all of %v", where, from)
					}
				}
				for _, v := range pod.Volumes {
					kinds := slices.DeleteFunc(slices.Collect(maps.Keys(v)), func(key string) bool { return key == "name" })
					switch kind := kinds[0]; kind {
					case "emptyDir":
					case "secret":
						secret := v["secret"].(map[string]any)["secretName"]
						if secret != "tunnox-join" {
							t.Errorf("%s gets all of the Secret %v", where, secret)
						}
						secrets = append(secrets, "join-token")
					default:
						t.Errorf("%s has a volume of kind %s, and this test does not look into those", where, kind)
					}
				}
				allow(t, where, role, secrets)
			}
		}
	}
	for _, role := range []string{"control", "forwarder", "migrate"} {
		if !roles[role] {
			t.Errorf("there is no manifest of a %s", role)
		}
	}
}

// On one machine accounts separate the roles: a data folder belongs to its account
// only.
func TestSystemdGivesEachRoleItsOwnAccount(t *testing.T) {
	line := regexp.MustCompile(`(?m)^(User|Group|StateDirectory|StateDirectoryMode|EnvironmentFile|LoadCredential|BindPaths|BindReadOnlyPaths|SupplementaryGroups)=(.*)$`)
	of := map[string]map[string]string{}
	for _, file := range files(t, "systemd/*.service") {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		unit := map[string]string{}
		for _, m := range line.FindAllStringSubmatch(string(text), -1) {
			unit[m[1]] = m[2]
		}
		of[strings.TrimSuffix(filepath.Base(file), ".service")] = unit
	}
	forwarder := of["tunnoxd-forwarder"]
	if forwarder == nil {
		t.Fatal("there is no unit of a forwarder")
	}
	for name, unit := range of {
		if unit["StateDirectory"] != "" && unit["StateDirectoryMode"] != "0700" {
			t.Errorf("others read the data of %s", name)
		}
		if name == "tunnoxd-forwarder" {
			continue
		}
		for _, key := range []string{"User", "Group", "StateDirectory", "EnvironmentFile"} {
			if unit[key] == forwarder[key] {
				t.Errorf("a forwarder has the %s of %s: %s", key, name, unit[key])
			}
		}
	}
	for _, key := range []string{"LoadCredential", "BindPaths", "BindReadOnlyPaths", "SupplementaryGroups"} {
		if forwarder[key] != "" {
			t.Errorf("a forwarder has %s=%s", key, forwarder[key])
		}
	}
}

// Each forwarder of the compose file has a user of Redis of its own: one that is put out
// takes no other one along.
func TestComposeGivesEachForwarderAUserOfRedis(t *testing.T) {
	for _, file := range files(t, "docker/compose*.yaml") {
		services := servicesOf(t, file)
		volume := func(s composed) string {
			for _, v := range s.Volumes {
				if name, at, _ := strings.Cut(v, ":"); at == "/run/redis" || at == "/run/redis:ro" {
					return name
				}
			}
			return ""
		}
		made, used := map[string]string{}, map[string]string{} // by volume: the user's name, the forwarder
		for name, s := range services {
			if s.Image != "tunnox" {
				continue
			}
			v := volume(s)
			switch s.Command[0] {
			case "redis-user":
				i := slices.Index(s.Command, "--name")
				if i < 0 || v == "" {
					t.Fatalf("%s: %s makes a user for all", file, name)
				}
				made[v] = s.Command[i+1]
			case "forwarder":
				if other := used[v]; v == "" || other != "" {
					t.Errorf("%s: %s uses the volume %q, as %q does", file, name, v, other)
				}
				used[v] = name
			}
		}
		if !maps.Equal(made, used) || len(used) == 0 {
			t.Errorf("%s: users %v, forwarders %v", file, made, used)
		}
	}
}
