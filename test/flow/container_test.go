package flow

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/tunnox-net/tunnox/test/programs"
	"github.com/tunnox-net/tunnox/test/services"
)

// containerAddress is the address at which a container's published ports arrive.
const containerAddress = "192.0.2.10"

// TestContainerIsReachable: what the image and the compose file start is reached from
// outside the container. The API listened on the container's loopback once, where what
// docker run -p publishes does not arrive. A container's network is a network namespace.
func TestContainerIsReachable(t *testing.T) {
	t.Parallel()
	image := imageEnvironment(t)
	t.Run("the image", func(t *testing.T) {
		c := startContained(t, image, "serve")
		c.answers(t, "9000", "9090")
		join := c.enter(t, programs.Build(t)+"/tunnox", "join", c.Says(`tunnox join (\S+)`, allowed)[1], "--state", t.TempDir())
		if out, err := join.CombinedOutput(); err != nil {
			t.Errorf("the line that the server prints: %v: %s", err, out)
		}
	})
	t.Run("compose", func(t *testing.T) {
		text, err := os.ReadFile("../../deploy/docker/compose.yaml")
		if err != nil {
			t.Fatal(err)
		}
		var compose struct {
			Services map[string]struct {
				Command     []string
				Environment map[string]string
			}
		}
		if err := yaml.Unmarshal(text, &compose); err != nil {
			t.Fatal(err)
		}
		service := compose.Services["control-1"]
		env := maps.Clone(image)
		maps.Copy(env, service.Environment)
		env["TUNNOX_POSTGRES"] = services.Postgres(t) // over a Unix socket, which is in every network
		env["TUNNOX_REDIS"] = "redis://127.0.0.1:1/0" // away
		delete(env, "TUNNOX_REDIS_CA")
		env["TUNNOXD_API_KEY"] = strings.Repeat("0123456789", 4)
		startContained(t, env, service.Command...).answers(t, "9000", "9090", "50051")
	})
}

// imageEnvironment gives what the Dockerfile sets, and checks that it starts serve.
func imageEnvironment(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile("../../deploy/docker/Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), "\nCMD [\"serve\"]\n") {
		t.Error("the image does not start serve")
	}
	env := map[string]string{}
	for _, line := range regexp.MustCompile(`(?m)^ENV (.*)$`).FindAllStringSubmatch(string(text), -1) {
		for _, setting := range strings.Fields(line[1]) {
			name, value, _ := strings.Cut(setting, "=")
			env[name] = value
		}
	}
	if env["TUNNOX_DATA"] == "" {
		t.Fatal("the Dockerfile's settings are not found")
	}
	return env
}

// contained is a server in a network of its own.
type contained struct{ *programs.Process }

func startContained(t *testing.T, settings map[string]string, args ...string) contained {
	t.Helper()
	settings = maps.Clone(settings)
	settings["TUNNOX_DATA"] = t.TempDir()
	var env []string
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		env = append(env, name+"="+settings[name])
	}
	unshare, err := exec.LookPath("unshare")
	if err != nil {
		t.Fatal(err)
	}
	script := fmt.Sprintf(`PATH=$PATH:/usr/sbin:/sbin; ip link set lo up && ip address add %s/24 dev lo && exec "$@"`, containerAddress)
	flags := []string{"--net"}
	if os.Getuid() != 0 { // a network needs a root, if only one of a namespace
		flags = append(flags, "--map-root-user")
	}
	c := contained{programs.Start(t, unshare, env, append(append(flags, "sh", "-c", script, "sh", programs.Build(t)+"/tunnoxd"), args...)...)}
	c.Says("is running", allowed)
	return c
}

// enter makes a command that runs in the network.
func (c contained) enter(t *testing.T, args ...string) *exec.Cmd {
	flags := []string{"--target", strconv.Itoa(c.PID()), "--net"}
	if os.Getuid() != 0 {
		flags = append(flags, "--user", "--preserve-credentials")
	}
	return exec.CommandContext(t.Context(), "nsenter", append(flags, args...)...)
}

// answers waits until something listens at each port of the container's address.
func (c contained) answers(t *testing.T, ports ...string) {
	t.Helper()
	for _, port := range ports {
		programs.Eventually(t, allowed, func() error {
			if out, err := c.enter(t, "bash", "-c", "exec 3<>/dev/tcp/"+containerAddress+"/"+port).CombinedOutput(); err != nil {
				return fmt.Errorf("port %s: %w: %s", port, err, out)
			}
			return nil
		})
	}
	if out, err := c.enter(t, "curl", "--silent", "--show-error", "--fail", "http://"+containerAddress+":9000/health").CombinedOutput(); err != nil {
		t.Errorf("the API: %v: %s", err, out)
	}
}
