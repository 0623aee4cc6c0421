package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tunnox-net/tunnox/daemon"
)

const serviceLong = `Have the server start with the machine, and start again when it ends.

install is for root. The settings are in a file, /etc/tunnox/tunnoxd.yaml unless
--config names another one; it is checked before anything is installed. Secrets belong in
/etc/tunnox/SERVICE.env (mode 600, for example TUNNOX_POSTGRES=...), which only systemd
reads: nothing secret is in the unit, on the command line or in the log. The server runs
as the account tunnox, which is made if it is missing, with the rights that it needs and
no others; its data is in /var/lib/tunnox.

Every command may be repeated, also after one that was killed.`

// role is one of those that a service may have.
type role struct {
	service, account string
	settings         []string
}

var roles = map[string]role{
	"serve":     {"tunnoxd", "tunnox", serveSettings},
	"control":   {"tunnoxd-control", "tunnox", controlSettings},
	"forwarder": {"tunnoxd-forwarder", "tunnox-forwarder", forwarderSettings},
}

// servicer installs the server.
type servicer struct {
	out     io.Writer
	role    string
	config  string
	manager daemon.Manager // nil: that of this machine
	program string
	etc     string // where settings are
	lib     string // where data is
	account func(ctx context.Context, name string) error
}

func serviceCommand(out io.Writer, began *bool) *cobra.Command {
	v := &servicer{out: out, etc: "/etc/tunnox", lib: "/var/lib", account: makeAccount}
	cmd := &cobra.Command{Use: "service", Short: "Have the server start with this machine", Long: serviceLong, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usageError{errors.New("service needs a command; see tunnoxd service --help")}
		}}
	for _, c := range []struct {
		use, short string
		do         func(context.Context, role) error
	}{
		{"install", "Install the service, or bring it up to date, and start it", v.install},
		{"uninstall", "End the service and remove it; data and settings stay", v.uninstall},
		{"start", "Start the service", v.start},
		{"stop", "Stop the service until the machine or somebody starts it again", v.stop},
		{"status", "Show whether the service runs; the status is 0 if it does", v.status},
	} {
		cmd.AddCommand(&cobra.Command{Use: c.use, Short: c.short, Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
			r, ok := roles[v.role]
			if !ok {
				return usageError{fmt.Errorf("--role %q is not one of serve, control, forwarder", v.role)}
			}
			*began = true
			if err := v.prepare(); err != nil {
				return err
			}
			return c.do(cmd.Context(), r)
		}})
	}
	cmd.PersistentFlags().StringVar(&v.role, "role", "serve", "serve, control or forwarder")
	cmd.PersistentFlags().StringVar(&v.config, "config", "", "YAML `file` with the settings (default /etc/tunnox/tunnoxd.yaml)")
	return cmd
}

// prepare finds out about this machine.
func (v *servicer) prepare() (err error) {
	if v.manager != nil {
		return nil
	}
	if v.manager, err = daemon.System(); err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return errors.New("a server is a service of the machine, which needs root: run it with sudo")
	}
	if v.program, err = os.Executable(); err == nil {
		v.program, err = filepath.EvalSymlinks(v.program)
	}
	return err
}

// makeAccount makes an account for a service if it is missing.
func makeAccount(ctx context.Context, name string) error {
	if _, err := user.Lookup(name); err == nil {
		return nil
	}
	if output, err := exec.CommandContext(ctx, "useradd", "--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin", name).CombinedOutput(); err != nil {
		return fmt.Errorf("make the account %s: %w: %s", name, err, output)
	}
	return nil
}

func (v *servicer) install(ctx context.Context, r role) error {
	file := v.config
	if file == "" {
		file = filepath.Join(v.etc, "tunnoxd.yaml")
	}
	file, err := filepath.Abs(file)
	if err != nil {
		return err
	}
	if _, err := os.Stat(file); errors.Is(err, os.ErrNotExist) {
		return usageError{fmt.Errorf("there are no settings in %s: write them there, or name another file with --config (an empty file is a server for this machine only)", file)}
	}
	data := filepath.Join(v.lib, r.account)
	cfg, err := v.settings(r, file, data)
	if err != nil {
		return err
	}
	if err := v.account(ctx, r.account); err != nil {
		return err
	}
	s := daemon.Service{Name: r.service, Description: "Tunnox " + v.role, Program: v.program, Account: r.account,
		Arguments: []string{v.role, "--data", data, "--config", file}}
	lines := []string{"Group=" + r.account, "StateDirectory=" + r.account, "StateDirectoryMode=0700", "ProtectHome=yes",
		"EnvironmentFile=-" + filepath.Join(v.etc, r.service+".env"), "TimeoutStopSec=" + strconv.Itoa(int(cfg.Drain.Seconds())+35), "LimitNOFILE=1048576"}
	if cfg.lowPort() {
		lines = append(lines, "CapabilityBoundingSet=CAP_NET_BIND_SERVICE", "AmbientCapabilities=CAP_NET_BIND_SERVICE")
	}
	s.Unit = daemon.Unit(s, false, lines...)
	if err := v.manager.Install(ctx, s); err != nil {
		return err
	}
	_, err = fmt.Fprintf(v.out, "the service %s runs, as %s, with the settings in %s and its data in %s\nits log, with the line that joins machines: %s\n", s.Name, r.account, file, data, v.manager.Log(s.Name))
	return err
}

// settings reads the file as the server will, and tells what is wrong with it.
func (v *servicer) settings(r role, file, data string) (*config, error) {
	cfg := &config{}
	flags := pflag.NewFlagSet("service", pflag.ContinueOnError)
	cfg.flags(flags, r.settings, commonSettings)
	if err := flags.Parse([]string{"--data", data, "--config", file}); err != nil {
		return nil, err
	}
	return cfg, cfg.load(flags, nil) // the environment is that of the shell, which the service has not
}

// lowPort tells whether a port below 1024 is wanted, which needs a right.
func (c *config) lowPort() bool {
	for _, address := range []string{c.API, c.Listen, c.WS, c.QUIC, c.HTTP, c.HTTPS, c.TLS} {
		_, port, err := net.SplitHostPort(address)
		if n, numErr := strconv.Atoi(port); err == nil && numErr == nil && n > 0 && n < 1024 {
			return true
		}
	}
	ports := c.publicPorts()
	return ports != nil && ports.First < 1024
}

func (v *servicer) uninstall(ctx context.Context, r role) error {
	was, err := v.manager.Uninstall(ctx, r.service)
	if err != nil {
		return err
	}
	text := "the service %s is removed; its data and settings stay\n"
	if !was {
		text = "there is no service %s\n"
	}
	_, err = fmt.Fprintf(v.out, text, r.service)
	return err
}

func (v *servicer) start(ctx context.Context, r role) error {
	return v.told(r, "started", v.manager.Start(ctx, r.service))
}

func (v *servicer) stop(ctx context.Context, r role) error {
	return v.told(r, "stopped", v.manager.Stop(ctx, r.service))
}

func (v *servicer) told(r role, done string, err error) error {
	if errors.Is(err, daemon.ErrNotInstalled) {
		return fmt.Errorf("the service %s is not installed: run tunnoxd service install", r.service)
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(v.out, "%s: %s\n", r.service, done)
	return err
}

func (v *servicer) status(ctx context.Context, r role) error {
	s, err := v.manager.State(ctx, r.service)
	switch {
	case err != nil:
		return err
	case !s.Installed:
		return v.told(r, "", daemon.ErrNotInstalled)
	}
	with, pid := "no", ""
	if s.Enabled {
		with = "yes"
	}
	if s.PID != 0 {
		pid = fmt.Sprintf(", process %d", s.PID)
	}
	if _, err := fmt.Fprintf(v.out, "service              %s\nstate                %s%s\nstarts with machine  %s\n", r.service, s.Detail, pid, with); err != nil {
		return err
	}
	if !s.Running {
		return fmt.Errorf("the service does not run; its log says why: %s", v.manager.Log(r.service))
	}
	return nil
}
