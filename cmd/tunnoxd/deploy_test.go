package main

import (
	"io/fs"
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
