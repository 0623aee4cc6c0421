package main

import (
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// TestDeployFilesNameSettingsThatExist reads the units, images and manifests of
// deploy/ as text: a flag or a variable there that tunnoxd does not have would be
// found by the first person who follows them.
func TestDeployFilesNameSettingsThatExist(t *testing.T) {
	known := (&config{}).declare()
	variables := slices.Concat(otherVariables, []string{"TUNNOX_CONFIG"})
	known.VisitAll(func(f *pflag.Flag) { variables = append(variables, variable(f.Name)) })
	var (
		variablePattern = regexp.MustCompile(`\bTUNNOX_[A-Z_]*[A-Z]\b`)
		commandPattern  = regexp.MustCompile(`\btunnoxd [a-z]+((?: +--[a-z-]+(?:[= ][^- \n][^ \n]*)?)+)`)
		flagPattern     = regexp.MustCompile(`--([a-z-]+)`)
	)
	var seen int
	err := filepath.WalkDir("../../deploy", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, name := range variablePattern.FindAllString(string(text), -1) {
			seen++
			if !slices.Contains(variables, name) {
				t.Errorf("%s: there is no setting %s", path, name)
			}
		}
		for _, command := range commandPattern.FindAllStringSubmatch(string(text), -1) {
			for _, flag := range flagPattern.FindAllStringSubmatch(command[1], -1) {
				seen++
				if known.Lookup(flag[1]) == nil && flag[1] != "config" {
					t.Errorf("%s: there is no flag --%s (%s)", path, flag[1], strings.TrimSpace(command[0]))
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen < 20 {
		t.Errorf("only %d settings were found: the patterns do not fit any more", seen)
	}
}

// TestTheImagesPortsCanBePublished: what listens on a container's loopback is reached
// by nobody, whatever -p says.
func TestTheImagesPortsCanBePublished(t *testing.T) {
	text, err := os.ReadFile("../../deploy/docker/Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	var environ []string
	for _, line := range regexp.MustCompile(`(?m)^ENV (.*)$`).FindAllStringSubmatch(string(text), -1) {
		environ = append(environ, strings.Fields(line[1])...)
	}
	cfg := &config{}
	flags := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	cfg.flags(flags, commonSettings, serveSettings)
	if err := cfg.load(flags, environ); err != nil {
		t.Fatal(err)
	}
	for name, address := range map[string]string{"api": cfg.API, "listen": cfg.Listen, "metrics": cfg.Metrics} {
		_, port, err := net.SplitHostPort(address)
		if err != nil || loopback(address) {
			t.Errorf("--%s is %q in the image (%v): it cannot be published", name, address, err)
		}
		if !regexp.MustCompile(`(?m)^EXPOSE .*\b` + port + `\b`).Match(text) {
			t.Errorf("the image does not say that it has port %s of --%s", port, name)
		}
	}
}

// TestTheAgentsUnitBelievesARefusal: an agent that was refused for good and is started
// again at once asks the server once a second, for ever.
func TestTheAgentsUnitBelievesARefusal(t *testing.T) {
	text, err := os.ReadFile("../../deploy/systemd/tunnox-agent.service")
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`(?m)^RestartPreventExitStatus=3$`).Match(text) {
		t.Error("the unit starts an agent again that was refused for good")
	}
}
