package test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/tunnox-net/tunnox/domain"
)

// TestLogsOfServersNameNobody: no server logs a value under a name that the table of what
// is personal has.
func TestLogsOfServersNameNobody(t *testing.T) {
	attribute := regexp.MustCompile(`(?i)\b(?:log|logger)\.(?:With|Debug|Info|Warn|Error|Log)[A-Za-z]*\(.*"(` + strings.Join(domain.PersonalAttributes, "|") + `)",`)
	if !attribute.MatchString(`f.log.Info("a user came", "username", name)`) {
		t.Fatal("this test is blind")
	}
	lines := 0
	for _, of := range []string{"bridge", "broker", "certs", "cmd/tunnoxd", "control", "directory", "eventstore", "forwarder", "httpapi", "ingress", "projections", "transport", "usage", "webhook"} {
		err := filepath.WalkDir(filepath.Join("..", of), func(path string, d fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			for n, line := range strings.Split(string(text), "\n") {
				lines++
				if found := attribute.FindStringSubmatch(line); found != nil {
					t.Errorf("%s:%d logs %s", path, n+1, found[1])
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if lines < 10_000 {
		t.Errorf("only %d lines were looked at", lines)
	}
}
