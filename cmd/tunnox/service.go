package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tunnox-net/tunnox/daemon"
)

const serviceLong = `Have the agent of this machine start with the machine, and start again when it ends.

With systemd, root installs a service of the machine. It runs as the account that has
joined: that of --account, or of who ran sudo. If root itself has joined, the service has
an account of its own, and the identity moves to /var/lib/tunnox-agent, so that there is
one agent with it. Other accounts install a service of their own, which needs no rights;
it runs while they are logged in, and always after "loginctl enable-linger". On macOS
launchd runs it, on Windows the manager of services.

Flags of the agent stand behind --, for example: tunnox service install -- --allow 10.0.0.5:5432
Everybody on the machine can read them. The identity stands in none of them.

A context has a service of its own: tunnox --context home service install.

Every command may be repeated, also after one that was killed.`

// servicer installs the agent.
type servicer struct {
	surroundings
	state   string
	account string
	manager daemon.Manager // nil: that of this machine
	// Of this machine; tests have others.
	root     bool
	program  string
	homes    func(account string) (home string, err error)
	machines bool // the manager is that of the machine, and systemd
}

func serviceCommand(s surroundings) *cobra.Command {
	v := &servicer{surroundings: s}
	cmd := &cobra.Command{Use: "service", Short: "Have the agent start with this machine", Long: serviceLong}
	install := &cobra.Command{Use: "install [-- FLAGS OF THE AGENT]", Short: "Install the service, or bring it up to date, and start it",
		Example: "  sudo tunnox service install\n  tunnox service install -- --allow 10.0.0.5:5432"}
	install.Flags().StringVar(&v.account, "account", "", "`name` of the account that the service runs as, for root (default: who ran sudo)")
	install.RunE = func(cmd *cobra.Command, args []string) error {
		return v.prepared(cmd.Context(), func(ctx context.Context) error { return v.install(ctx, args) })
	}
	cmd.AddCommand(install)
	for _, c := range []struct {
		use, short string
		do         func(context.Context) error
	}{
		{"uninstall", "End the service and remove it; the identity stays", v.uninstall},
		{"start", "Start the service", func(ctx context.Context) error { return v.tell(ctx, daemon.Manager.Start, "started") }},
		{"stop", "Stop the service until the machine or somebody starts it again", func(ctx context.Context) error { return v.tell(ctx, daemon.Manager.Stop, "stopped") }},
		{"status", "Show whether the service runs; the status is 0 if it does", v.status},
	} {
		cmd.AddCommand(&cobra.Command{Use: c.use, Short: c.short, Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return v.prepared(cmd.Context(), c.do) }})
	}
	cmd.PersistentFlags().StringVar(&v.state, "state", "", "`directory` with the identity that the agent has (default: that of the account's context)")
	return cmd
}

// prepared finds out about this machine.
func (v *servicer) prepared(ctx context.Context, do func(context.Context) error) (err error) {
	if v.manager == nil {
		if v.manager, err = daemon.System(); err != nil {
			return err
		}
		systemd, ok := v.manager.(*daemon.Systemd)
		v.root, v.machines, v.homes = os.Geteuid() == 0, ok && !systemd.User, homeOf
		if v.program, err = os.Executable(); err == nil {
			v.program, err = filepath.EvalSymlinks(v.program)
		}
		if err != nil {
			return fmt.Errorf("find this program: %w", err)
		}
	}
	if v.account == "" && v.root {
		if sudo := v.variable("SUDO_USER"); sudo != "" && sudo != "root" {
			v.account = sudo
		}
	}
	return do(ctx)
}

// homeOf gives the home directory of an account.
func homeOf(account string) (string, error) {
	who, err := user.Lookup(account)
	if err != nil {
		return "", err
	}
	return who.HomeDir, nil
}

// of gives the place whose agent the service runs. Of another account it is that of its
// home.
func (v *servicer) of() (place, error) {
	if v.account == "" || v.state != "" || !v.root {
		return v.place(v.state)
	}
	home, err := v.homes(v.account)
	if err != nil {
		return place{}, fmt.Errorf("--account %s: %w", v.account, err)
	}
	theirs := surroundings{environ: []string{"HOME=" + home, "TUNNOX_CONTEXT=" + v.variable("TUNNOX_CONTEXT")}, context: v.context}
	return theirs.place("")
}

// name is the name of the service of a place.
func (v *servicer) name(p place) string {
	switch {
	case filepath.Base(filepath.Dir(p.dir)) == contextsDir:
		return serviceName + "-" + p.name
	case filepath.Dir(p.dir) == v.services:
		return filepath.Base(p.dir)
	}
	return serviceName
}

const serviceName = "tunnox-agent"

func (v *servicer) install(ctx context.Context, extra []string) error {
	if err := v.agentFlags(extra); err != nil {
		return err
	}
	p, err := v.of()
	if err != nil {
		return err
	}
	s := daemon.Service{Name: v.name(p), Description: "Tunnox agent", Program: v.program, Account: v.account}
	state := p.dir
	alone := v.machines && v.account == "" // root without sudo: an account for the service alone
	if alone {
		if state, err = v.move(p.dir, filepath.Join(v.services, s.Name)); err != nil {
			return err
		}
	}
	if state, err = filepath.Abs(state); err != nil {
		return err
	}
	k, err := place{dir: state}.read()
	switch {
	case err != nil:
		return err
	case k.id.ClientID == 0 || len(k.joined.Servers) == 0:
		looked := []string{filepath.Join(state, "client.json")}
		if alone && state != p.dir {
			looked = append(looked, filepath.Join(p.dir, "client.json"))
		}
		return codedError{exitUsage, fmt.Errorf("there is no identity for the service in %s\n  run tunnox join CODE first, as the account that the service is to run as", strings.Join(looked, " or "))}
	}
	s.Arguments = append([]string{"agent", "--state", state}, extra...)
	lines := []string{"LimitNOFILE=65536", "RestartPreventExitStatus=3"} // 3: the server refused the identity for good
	switch {
	case alone:
		if strings.HasPrefix(v.program, "/root/") || strings.HasPrefix(v.program, "/home/") {
			return fmt.Errorf("an account of its own cannot run %s: install -m 755 %s /usr/local/bin/tunnox, and run that one's service install", v.program, v.program)
		}
		lines = append(lines, "DynamicUser=yes", "StateDirectory="+s.Name, "StateDirectoryMode=0700", "ProtectHome=yes")
	case v.machines:
		lines = append(lines, "ProtectHome=read-only", "ReadWritePaths="+daemon.Path(state))
	}
	s.Unit = daemon.Unit(s, !v.machines, lines...)
	if err := v.manager.Install(ctx, s); err != nil {
		return v.rights(err)
	}
	as := ""
	switch {
	case alone:
		as = ", as an account of its own"
	case v.account != "":
		as = ", as " + v.account
	}
	fmt.Fprintf(v.stdout, "the service %s runs%s, with the identity in %s\n", s.Name, as, state)
	if log := v.manager.Log(s.Name); log != "" {
		fmt.Fprintf(v.stdout, "its log: %s\n", log)
	}
	return nil
}

// agentFlags refuses flags that the agent does not know, before a service with them fails
// in silence, and those that say who it is.
func (v *servicer) agentFlags(extra []string) error {
	cmd := agentCommand(v.surroundings)
	if err := cmd.ParseFlags(extra); err != nil {
		return codedError{exitUsage, fmt.Errorf("flags of the agent: %w", err)}
	}
	if rest := cmd.Flags().Args(); len(rest) > 0 {
		return usageError("%q is no flag of the agent; they stand behind --", rest[0])
	}
	for _, flag := range []string{"state", "client-id", "auth-code-file"} {
		if cmd.Flags().Changed(flag) {
			return usageError("--%s: the service has the identity of a context; choose one with --context or with --state before --", flag)
		}
	}
	return nil
}

// identityFiles are those of an agent with an identity, as they are named in its state.
var identityFiles = []string{"agent.key", contextFile, "client.json"} // the last one tells that all are there

// move brings an identity to the directory of a service with an account of its own. It is
// copied before the original is removed, so a kill at any moment loses nothing, and the
// next install goes on.
func (v *servicer) move(from, to string) (string, error) {
	here, err := place{dir: from}.read()
	if err != nil {
		return "", err
	}
	there, err := place{dir: to}.read()
	if err != nil {
		return "", err
	}
	switch {
	case here.id.ClientID == 0 || filepath.Clean(from) == filepath.Clean(to):
		return to, nil // it has been moved
	case there.id.ClientID != 0 && there.id.ClientID != here.id.ClientID:
		return "", fmt.Errorf("%s has client %d already, and %s has client %d: which one should the service be?\n  delete the directory of the other one, or give --state", to, there.id.ClientID, from, here.id.ClientID)
	}
	if agentRuns(from) {
		return "", fmt.Errorf("an agent runs with the identity in %s: end it first, the service takes its place", from)
	}
	for _, name := range identityFiles {
		b, err := os.ReadFile(filepath.Join(from, name))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err == nil {
			err = keepFile(filepath.Join(to, name), b)
		}
		if err != nil {
			return "", fmt.Errorf("move the identity: %w", err)
		}
	}
	for _, name := range slices.Backward(identityFiles) {
		if err := os.Remove(filepath.Join(from, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return "", fmt.Errorf("move the identity: %w", err)
		}
	}
	return to, nil
}

// rights adds what to do where the manager refuses.
func (v *servicer) rights(err error) error {
	if errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("%w\n  run it as root (sudo) or as an administrator", err)
	}
	return err
}

// installed gives the name of the service of the place. The identity may be with it.
func (v *servicer) installed() (string, error) {
	p, err := v.of()
	return v.name(p), err
}

func (v *servicer) uninstall(ctx context.Context) error {
	name, err := v.installed()
	if err != nil {
		return err
	}
	was, err := v.manager.Uninstall(ctx, name)
	if err != nil {
		return v.rights(err)
	}
	text := "the service %s is removed; the identity stays where it is\n"
	if !was {
		text = "there is no service %s\n"
	}
	_, err = fmt.Fprintf(v.stdout, text, name)
	return err
}

func (v *servicer) tell(ctx context.Context, do func(daemon.Manager, context.Context, string) error, done string) error {
	name, err := v.installed()
	if err != nil {
		return err
	}
	if err := do(v.manager, ctx, name); err != nil {
		return v.rights(missing(err))
	}
	_, err = fmt.Fprintf(v.stdout, "%s: %s\n", name, done)
	return err
}

func missing(err error) error {
	if errors.Is(err, daemon.ErrNotInstalled) {
		return errors.New("the service is not installed: run tunnox service install")
	}
	return err
}

func (v *servicer) status(ctx context.Context) error {
	name, err := v.installed()
	if err != nil {
		return err
	}
	s, err := v.manager.State(ctx, name)
	if err != nil {
		return v.rights(err)
	}
	if !s.Installed {
		return missing(daemon.ErrNotInstalled)
	}
	with := "no"
	if s.Enabled {
		with = "yes"
	}
	pid := ""
	if s.PID != 0 {
		pid = fmt.Sprintf(", process %d", s.PID)
	}
	text := fmt.Sprintf("service              %s\nstate                %s%s\nstarts with machine  %s\n", name, oneLine(s.Detail), pid, with)
	if _, err := io.WriteString(v.stdout, text); err != nil {
		return err
	}
	if !s.Running {
		return fmt.Errorf("the service does not run; its log says why: %s", v.manager.Log(name))
	}
	return nil
}
