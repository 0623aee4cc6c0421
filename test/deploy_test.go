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
// more. "redis" is the address of Redis with a password that may do everything there;
// "redis-forwarder" is that of the user that tunnoxd redis-user makes.
var seen = map[string][]string{
	"control":    {"api-key", "postgres", "redis"},
	"migrate":    {"postgres"},
	"join-token": {"api-key", "postgres", "join-token"},
	"redis-user": {"redis", "redis-forwarder"},
	"forwarder":  {"redis-forwarder", "join-token"},
}

// secretSettings are settings whose value is a secret or the path of one.
var secretSettings = map[string]string{"TUNNOXD_API_KEY": "api-key", "TUNNOXD_API_KEY_BEFORE": "api-key",
	"TUNNOX_POSTGRES": "postgres", "TUNNOX_REDIS": "redis", "TUNNOX_REDIS_FILE": "redis-forwarder", "TUNNOX_JOIN_TOKEN_FILE": "join-token"}

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
	Command     []string
	Environment map[string]string
	Volumes     []string
	Secrets     []any
	Configs     []any
	EnvFile     any      `yaml:"env_file"`
	VolumesFrom []string `yaml:"volumes_from"`
}

func TestComposeGivesEachRoleItsSecretsOnly(t *testing.T) {
	for _, file := range files(t, "docker/compose*.yaml") {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var compose struct{ Services map[string]composed }
		if err := yaml.Unmarshal(text, &compose); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		writers := map[string][]string{} // of a volume: the roles that write it
		forwarders := 0
		for name, s := range compose.Services {
			if s.Image != "tunnox" {
				continue
			}
			where := file + ": " + name
			role := s.Command[0]
			if role == "forwarder" {
				forwarders++
			}
			var secrets []string
			for setting := range s.Environment {
				if secret, ok := secretSettings[setting]; ok {
					secrets = append(secrets, secret)
				}
			}
			allow(t, where, role, secrets)
			if s.EnvFile != nil || s.VolumesFrom != nil || s.Secrets != nil || s.Configs != nil {
				t.Errorf("%s gets secrets in a way that this test does not look into", where)
			}
			for setting, value := range s.Environment {
				if _, ok := secretSettings[setting]; !ok && regexp.MustCompile(`(?i)password|secret|api_key`).MatchString(setting+value) {
					t.Errorf("%s: %s looks like a secret, and this test does not know it", where, setting)
				}
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
		for name, s := range compose.Services {
			if s.Image != "tunnox" || s.Command[0] != "forwarder" {
				continue
			}
			for _, v := range s.Volumes {
				volume, at, _ := strings.Cut(v, ":")
				switch by := writers[volume]; {
				case strings.HasPrefix(volume, "/") || strings.HasPrefix(volume, "."):
					t.Errorf("%s: %s gets the folder %s of the machine", file, name, volume)
				case at == dataFolder && !slices.Equal(by, []string{"forwarder " + name}):
					t.Errorf("%s: the data of %s is written by %q", file, name, by)
				case at != dataFolder && !slices.Equal(by, []string{"join-token join"}) && !slices.Equal(by, []string{"redis-user " + strings.Replace(name, "forwarder", "redis-user", 1)}):
					t.Errorf("%s: %s gets the volume %s, which %q write", file, name, volume, by)
				}
			}
		}
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
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var compose struct{ Services map[string]composed }
		if err := yaml.Unmarshal(text, &compose); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		volume := func(s composed) string {
			for _, v := range s.Volumes {
				if name, at, _ := strings.Cut(v, ":"); strings.HasPrefix(at, "/run/redis") {
					return name
				}
			}
			return ""
		}
		made, used := map[string]string{}, map[string]string{} // by volume: the user's name, the forwarder
		for name, s := range compose.Services {
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
