package main

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/tunnox-net/tunnox/test/programs"
)

// way is one way from a loopback port to the service.
type way struct {
	name string
	port int
	pids []int // of the processes in between, whose children count too
}

// ways builds every way to a service that is possible on this machine. A way whose
// program is missing is left out.
func ways(l *lab, o options, service int) ([]way, *tunnel) {
	all := []way{{name: "direct", port: service}}
	for _, build := range []func(*lab, int) (way, error){throughHaproxy, throughSSH} {
		if w, err := build(l, service); err != nil {
			l.Logf("left out: %v", err)
		} else {
			all = append(all, w)
		}
	}
	lanes := newTunnel(l, o, service, "e2e")
	lanes.name = "tunnel, e2e"
	sealed := newTunnel(l, o, service, "e2e", "--lanes=false")
	sealed.name = "e2e, no lanes"
	t := newTunnel(l, o, service, "transport")
	return append(all, spliceWay(l, service), lanes.way, sealed.way, t.way), t
}

// daemon starts a program that ends with the lab, and waits until a port is open.
func daemon(l *lab, port int, name string, args ...string) (int, error) {
	path, err := exec.LookPath(name)
	for _, dir := range []string{"/usr/sbin", "/usr/local/sbin"} {
		if err != nil {
			path, err = exec.LookPath(filepath.Join(dir, name))
		}
	}
	if err != nil {
		return 0, fmt.Errorf("%s is not installed", name)
	}
	cmd := exec.Command(path, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	log, err := os.Create(filepath.Join(l.TempDir(), name+".log"))
	if err != nil {
		return 0, err
	}
	defer func() { _ = log.Close() }() // the child has its own descriptor
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	l.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // with its children
		_ = cmd.Wait()
	})
	if err := waitPort(port); err != nil {
		said, _ := os.ReadFile(log.Name()) // for the message only
		return 0, fmt.Errorf("%s: %w %s", name, err, said)
	}
	return cmd.Process.Pid, nil
}

// waitPort waits until a port is open.
func waitPort(port int) error {
	return programs.Poll(10*time.Second, func() error {
		c, err := programs.DialPort(port)
		if err == nil {
			_ = c.Close()
		}
		return err
	})
}

func throughHaproxy(l *lab, service int) (way, error) {
	w := way{name: "haproxy", port: programs.FreePort(l)}
	file := filepath.Join(l.TempDir(), "haproxy.cfg")
	text := fmt.Sprintf(`global
  maxconn 4000
defaults
  mode tcp
  option splice-auto
  timeout connect 5s
  timeout client 10m
  timeout server 10m
listen bench
  bind 127.0.0.1:%d
  server service 127.0.0.1:%d
`, w.port, service)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return w, err
	}
	pid, err := daemon(l, w.port, "haproxy", "-db", "-f", file)
	w.pids = []int{pid}
	return w, err
}

// throughSSH starts a private sshd with keys of its own and ssh -R to it.
func throughSSH(l *lab, service int) (way, error) {
	w := way{name: "ssh -R", port: programs.FreePort(l)}
	me, err := user.Current()
	if err != nil {
		return w, err
	}
	dir, port := l.TempDir(), programs.FreePort(l)
	for _, key := range []string{"host", "me"} {
		if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(dir, key)).CombinedOutput(); err != nil {
			return w, fmt.Errorf("ssh-keygen: %w %s", err, out)
		}
	}
	if os.Getuid() == 0 {
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil { // sshd insists on it as root
			return w, err
		}
	}
	config := filepath.Join(dir, "sshd_config")
	text := fmt.Sprintf("Port %d\nListenAddress 127.0.0.1\nHostKey %s/host\nAuthorizedKeysFile %s/me.pub\nPidFile none\nUsePAM no\nStrictModes no\nPermitRootLogin yes\nAllowTcpForwarding yes\n", port, dir, dir)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return w, err
	}
	server, err := daemon(l, port, "sshd", "-D", "-e", "-f", config)
	if err != nil {
		return w, err
	}
	client, err := daemon(l, w.port, "ssh", "-N", "-F", "none", "-p", strconv.Itoa(port), "-i", filepath.Join(dir, "me"),
		"-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
		"-o", "ExitOnForwardFailure=yes", "-R", fmt.Sprintf("127.0.0.1:%d:127.0.0.1:%d", w.port, service), me.Username+"@127.0.0.1")
	w.pids = []int{server, client}
	return w, err
}

// tunnel is our way: server, two agents, one mapping. That of a public mapping has no
// source agent.
type tunnel struct {
	way
	server         *programs.Server
	source, target *programs.Process
}

func newTunnel(l *lab, o options, service int, encryption string, agent ...string) *tunnel {
	args := []string{}
	if o.profile != "" {
		args = append(args, "--pprof")
	}
	t := &tunnel{server: programs.Serve(l, args...)}
	api := t.server.API
	user := api.CreateUser(l, "bench")
	source, target := api.CreateClient(l, user.ID, "source"), api.CreateClient(l, user.ID, "target")
	t.source, t.target = t.server.Join(l, api, source, agent...), t.server.Join(l, api, target, agent...)
	m := api.CreateMapping(l, programs.Mapping{UserID: user.ID, Protocol: "tcp", Source: source.ID, Target: target.ID,
		LocalPort: programs.FreePort(l), TargetHost: "127.0.0.1", TargetPort: service, Encryption: encryption})
	if err := waitPort(m.LocalPort); err != nil {
		l.Fatal(err)
	}
	t.way = way{name: "tunnel", port: m.LocalPort, pids: []int{t.server.PID(), t.source.PID(), t.target.PID()}}
	return t
}

// processes are our processes, by name.
func (t *tunnel) processes() map[string]*programs.Process {
	all := map[string]*programs.Process{"tunnoxd": t.server.Process, "target": t.target}
	if t.source != nil {
		all["source"] = t.source
	}
	return all
}

// sample stores a profile of the server, over the given time for CPU.
func (t *tunnel) sample(l *lab, o options, name, page string) {
	if o.profile != "" {
		sample(l, o, t.server, name+".pprof", page)
	}
}

// sample stores a page of a server's profiles.
func sample(l *lab, o options, server *programs.Server, name, page string) {
	if err := os.MkdirAll(o.profile, 0o755); err != nil {
		l.Fatal(err)
	}
	file := filepath.Join(o.profile, name)
	if err := os.WriteFile(file, server.Profile(l, page), 0o644); err != nil {
		l.Fatal(err)
	}
	l.Log("profile:", file)
}
