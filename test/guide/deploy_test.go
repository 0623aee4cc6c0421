package guide

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/tunnox-net/tunnox/test/programs"
)

// Pages for Docker, Kubernetes and systemd need what a test does not have. Their commands
// are run all the same, with stand-ins for the programs of others: tunnoxd and tunnox are
// real, and asked with each command line of a page whether they know its words. Files of
// this repository that a page names must be there, and what stands in the page's files
// must be settings.
func TestDeployments(t *testing.T) {
	t.Parallel()
	for _, page := range []string{"docker.md", "kubernetes.md", "cluster.md"} {
		t.Run(page, func(t *testing.T) {
			t.Parallel()
			d := &deployment{t: t, page: page, dir: t.TempDir(), tools: t.TempDir(), bin: programs.Build(t)}
			d.standIns()
			files := filesOf(t, page)
			for at, text := range files {
				if err := os.WriteFile(filepath.Join(d.dir, at[1]), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
				if strings.HasSuffix(at[1], ".yaml") {
					d.file(at[1], text)
				}
			}
			asked := 0
			for _, s := range stepsOf(t, page) {
				if strings.Contains(s.command, "tunnox") {
					asked++
				}
				d.step(s)
			}
			if asked == 0 || len(files) == 0 {
				t.Errorf("%d commands, %d files", asked, len(files))
			}
		})
	}
}

type deployment struct {
	t                     *testing.T
	page, dir, tools, bin string
}

// standIns are programs that find ours in their command line, and run it.
func (d *deployment) standIns() {
	const inside = `while [ $# -gt 0 ]; do case "$1" in
*/tunnoxd|tunnoxd) shift; exec tunnoxd "$@" ;;
*/tunnox) shift; exec tunnox "$@" ;;
agent) shift; if [ "$1" = join ]; then exec tunnox "$@"; fi ;;
*) shift ;;
esac; done`
	w := &walk{t: d.t, tools: d.tools}
	for name, script := range map[string]string{
		"docker": inside, "kubectl": inside, "sudo": `exec "$@"`, "install": "exit 0", "useradd": "exit 0", "systemctl": "exit 0",
		"tunnoxd": `exec ` + filepath.Join(d.bin, "tunnoxd") + ` "$@" --help`,
		"tunnox":  `exec ` + filepath.Join(d.bin, "tunnox") + ` "$@" --help`,
	} {
		w.tool(name, script)
	}
}

func (d *deployment) run(where, script string, args ...string) string {
	d.t.Helper()
	cmd := exec.Command("/bin/sh", append([]string{"-c", script, "sh"}, args...)...)
	cmd.Dir, cmd.Env = d.dir, []string{"PATH=" + d.tools + ":/usr/bin:/bin", "HOME=" + d.dir}
	out, err := cmd.CombinedOutput()
	if err != nil {
		d.t.Errorf("%s: %v\n%s", where, err, out)
	}
	return string(out)
}

var ofRepository = regexp.MustCompile(`\bdeploy/(?:docker|kubernetes|systemd)[a-zA-Z0-9_./-]*`)

func (d *deployment) step(s step) {
	d.t.Helper()
	where := fmt.Sprintf("%s:%d: %s", d.page, s.line, s.command)
	for _, file := range ofRepository.FindAllString(s.command, -1) {
		if _, err := os.Stat(filepath.Join("..", "..", file)); err != nil {
			d.t.Errorf("%s: %v", where, err)
		}
	}
	out := d.run(where, s.command)
	if ours.MatchString(s.command) && !strings.Contains(out, "Usage:") && !strings.Contains(s.command, ">") {
		d.t.Errorf("%s: the command line was not read:\n%s", where, out)
	}
}

// ours are command lines with one of our programs and what it is to do.
var ours = regexp.MustCompile(`(^|[ /])(tunnoxd?|agent) (join|http|agent|client|mapping|export|import|migrate|join-token|redis-user) `)

// file checks a file of YAML: one of compose, one of Kubernetes, or settings of a role.
func (d *deployment) file(name, text string) {
	d.t.Helper()
	var all map[string]any
	if err := yaml.Unmarshal([]byte(text), &all); err != nil {
		d.t.Errorf("%s: %s: %v", d.page, name, err)
		return
	}
	where := d.page + ": " + name
	if all["services"] == nil && all["kind"] == nil {
		d.settings(where, d.run(where, "tunnoxd "+strings.TrimSuffix(name, ".yaml")), slices.Collect(keysOf(all)))
		return
	}
	ours := 0
	each(all, func(o map[string]any) {
		image, _ := o["image"].(string)
		if !strings.Contains(image, "tunnox") {
			return
		}
		ours++
		line := append(texts(o["entrypoint"]), texts(o["command"])...)
		if line = append(line, texts(o["args"])...); !strings.Contains(line[0], "tunnox") {
			line = append([]string{"tunnoxd"}, line...)
		}
		line[0] = filepath.Base(line[0])
		help := d.run(where, `"$@"`, line...)
		if environment, ok := o["environment"].(map[string]any); ok {
			var flags []string
			for name := range environment {
				flags = append(flags, strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(name, "TUNNOX_")), "_", "-"))
			}
			d.settings(where, help, flags)
		}
	})
	if ours == 0 {
		d.t.Errorf("%s runs nothing of ours", where)
	}
}

// settings checks names of settings against the help of a role.
func (d *deployment) settings(where, help string, names []string) {
	d.t.Helper()
	for _, name := range names {
		if !strings.Contains(help, "--"+name+" ") {
			d.t.Errorf("%s: there is no setting %s", where, name)
		}
	}
}

func keysOf(all map[string]any) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for name := range all {
			if !yield(name) {
				return
			}
		}
	}
}

func each(value any, do func(map[string]any)) {
	switch v := value.(type) {
	case map[string]any:
		do(v)
		for _, inner := range v {
			each(inner, do)
		}
	case []any:
		for _, inner := range v {
			each(inner, do)
		}
	}
}

func texts(list any) (all []string) {
	values, _ := list.([]any)
	for _, v := range values {
		all = append(all, fmt.Sprint(v))
	}
	return all
}

// TestBehindNginx follows the page with nginx itself.
func TestBehindNginx(t *testing.T) {
	t.Parallel()
	w := newWalk(t, "behind-nginx.md", "3000", web(t, func(w http.ResponseWriter, r *http.Request) {
		visitor, _, _ := strings.Cut(r.Header.Get("X-Forwarded-For"), ",")
		fmt.Fprintf(w, "hello from %s\n", visitor)
	}), "8081", freePort(t), "8082", freePort(t))
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert"), filepath.Join(dir, "key")
	if out, err := exec.Command("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=test",
		"-addext", "subjectAltName=DNS:shop.localhost,IP:127.0.0.1", "-out", cert, "-keyout", key).CombinedOutput(); err != nil {
		t.Fatalf("openssl: %v: %s", err, out)
	}
	port := freePort(t)
	for said, here := range map[string]string{"443": port, "t.example.org": "localhost", "tunnox.example.org": "127.0.0.1", "https://*.t.example.org": "https://*.localhost:" + port,
		"/etc/ssl/tunnox.pem": cert, "/etc/ssl/tunnox.key": key, "events {}": "error_log stderr; pid " + dir + "/pid; events {}",
		"http {": "http { access_log off; client_body_temp_path " + dir + "/b; proxy_temp_path " + dir + "/p; fastcgi_temp_path " + dir + "/f; uwsgi_temp_path " + dir + "/u; scgi_temp_path " + dir + "/s;"} {
		w.bind(said, here)
	}
	nginx, err := exec.LookPath("nginx")
	if err != nil {
		nginx = "/usr/sbin/nginx"
	}
	w.tool("nginx", "exec "+nginx+` -e stderr "$@"`)
	w.tool("curl", "exec /usr/bin/curl --interface 127.0.0.2 --cacert "+cert+` "$@"`)
	real := filepath.Join(programs.Build(t), "tunnox")
	w.tool("tunnox", "SSL_CERT_FILE="+cert+" exec "+real+` "$@"`)
	t.Cleanup(func() { _ = exec.Command("sh", "-c", "kill $(cat "+dir+"/pid)").Run() })
	w.follow()
	if visitor := w.here("198.51.100.7"); visitor != "127.0.0.2" {
		t.Errorf("the service sees %q as its visitor", visitor)
	}
}
