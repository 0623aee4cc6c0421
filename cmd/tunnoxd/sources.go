package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"
)

// otherVariables are TUNNOX_ variables that are not settings of tunnoxd but of
// cmd/tunnox. The key of TUNNOX_API_KEY is a caller's. A server that is started in the
// same shell must not make it the operator's key, so its own is TUNNOXD_API_KEY.
var otherVariables = []string{"TUNNOX_API_KEY", "TUNNOX_API_CA", "TUNNOX_API_KEY_FILE",
	"TUNNOX_CLIENT_ID", "TUNNOX_AUTH_CODE", "TUNNOX_AUTH_CODE_FILE", "TUNNOX_SERVER", "TUNNOX_PIN", "TUNNOX_CA", "TUNNOX_STATE", "TUNNOX_ALLOW", "TUNNOX_ALLOW_LISTEN", "TUNNOX_ONLY", "TUNNOX_DENY_LOOPBACK", "TUNNOX_NAME",
	"TUNNOX_CONTEXT", "TUNNOX_SESSIONS", "TUNNOX_TRANSPORT", "TUNNOX_POLICY", "TUNNOX_PEER_KEY", "TUNNOX_PEER_KEY_ONLY", "TUNNOX_E2E_ONLY", "TUNNOX_LANES"}

// foreignVariable matches TUNNOX_ variables of others: those that Kubernetes makes for
// a service named tunnox, and those of the tests.
var foreignVariable = regexp.MustCompile(`_SERVICE_(HOST|PORT.*)$|_PORT(_.*)?$|^TUNNOX_(TEST|BENCH|DEMO)_`)

// readEnvironment gives the settings in the environment, by flag name. An unknown
// TUNNOX_ variable is a fault: a misspelt TUNNOX_POSTGRES must not start a server on an
// empty database. An empty variable counts as not set.
func readEnvironment(known *pflag.FlagSet, environ []string) (map[string]string, []error) {
	flagOf := map[string]string{"TUNNOX_CONFIG": "config"}
	known.VisitAll(func(f *pflag.Flag) { flagOf[variable(f.Name)] = f.Name })
	values, errs := map[string]string{}, []error(nil)
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, "TUNNOX_") || value == "" || slices.Contains(otherVariables, name) || foreignVariable.MatchString(name) {
			continue
		}
		flag, ok := flagOf[name]
		if !ok {
			errs = append(errs, fmt.Errorf("%s: there is no such setting; see --help", name))
			continue
		}
		values[flag] = value
	}
	return values, errs
}

// readFile reads a YAML mapping of settings to scalars. Settings of other commands are
// allowed, so that one file can serve a whole machine; unknown settings are not.
func readFile(known *pflag.FlagSet, path string) (map[string]string, []error) {
	if path == "" {
		return nil, nil
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, []error{fmt.Errorf("--config: %w", err)}
	}
	defer file.Close()
	var root yaml.Node
	if err := yaml.NewDecoder(file).Decode(&root); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, nil // an empty file, or only comments
		}
		return nil, []error{fmt.Errorf("--config %s: %w", path, err)}
	}
	body := root.Content[0]
	if body.Kind == yaml.ScalarNode && body.Tag == "!!null" {
		return nil, nil
	}
	if body.Kind != yaml.MappingNode {
		return nil, []error{fmt.Errorf("--config %s: each line must have the form \"setting: value\"", path)}
	}
	values, errs := map[string]string{}, []error(nil)
	for i := 0; i+1 < len(body.Content); i += 2 {
		key, value := body.Content[i], body.Content[i+1]
		_, twice := values[key.Value]
		switch {
		case key.Value == "plans": // data and not a setting: readPlans
		case known.Lookup(key.Value) == nil:
			errs = append(errs, fmt.Errorf("%s:%d: %s: there is no such setting; see --help", path, key.Line, key.Value))
		case twice:
			errs = append(errs, fmt.Errorf("%s:%d: %s: is set twice", path, key.Line, key.Value))
		case value.Kind != yaml.ScalarNode:
			errs = append(errs, fmt.Errorf("%s:%d: %s: must have one value", path, value.Line, key.Value))
		default:
			values[key.Value] = value.Value
		}
	}
	return values, errs
}
