package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/tunnox-net/tunnox/agent"
)

// A policy file lists what the agent may reach. The first rule that matches decides, and
// what none allows is refused:
//
//	rules:
//	  - deny: 10.0.0.13:*
//	  - allow: [10.0.0.0/8:443, db.internal:5432]
//	    protocols: [tcp, socks5]
//	    hours: mon-fri 08:00-18:00
//	  - allow: unix:/run/app.sock

// policyFile is a policy file as it was read last.
type policyFile struct {
	name string
	text []byte
}

// read reads the file.
func (f *policyFile) read() (agent.Policy, error) {
	text, err := os.ReadFile(f.name)
	if err != nil {
		return agent.Policy{}, fmt.Errorf("read the policy: %w", err)
	}
	f.text = text
	return parsePolicy(f.name, text)
}

// follow has the agent hold to the file as it is, until ctx ends. With a fault in it the
// rules stay as they were.
func (f *policyFile) follow(ctx context.Context, use func(agent.Policy), log *slog.Logger) {
	asked := make(chan os.Signal, 1)
	if len(reloadSignals) > 0 { // none would be all
		signal.Notify(asked, reloadSignals...)
		defer signal.Stop(asked)
	}
	tick := time.NewTicker(fileLook)
	defer tick.Stop()
	missing := false
	for {
		now := false
		select {
		case <-asked:
			now = true
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		text, err := os.ReadFile(f.name)
		if err != nil {
			if !missing || now {
				log.Error("the policy cannot be read; its rules stay as they were", "error", err)
			}
			missing = true
			continue
		}
		missing = false
		if !now && bytes.Equal(text, f.text) {
			continue
		}
		policy, err := f.read()
		if err != nil {
			log.Error("the policy has a fault; its rules stay as they were", "error", err)
			continue
		}
		use(policy)
		log.Info("the policy was read again", "file", f.name)
	}
}

// parsePolicy reads a policy file. All that is wrong with it is told at once, each with
// its line.
func parsePolicy(file string, text []byte) (agent.Policy, error) {
	var document yaml.Node
	if err := yaml.Unmarshal(text, &document); err != nil {
		return agent.Policy{}, fmt.Errorf("%s: %s", file, strings.TrimPrefix(err.Error(), "yaml: "))
	}
	r := &tunnelReader{file: file}
	var rules []agent.Rule
	found := false
	if len(document.Content) > 0 {
		seen := map[string]bool{}
		r.object(document.Content[0], "the file", func(key, value *yaml.Node) {
			if !r.known(key, "the file", "rules") || r.twice(key, seen) {
				return
			}
			found = true
			if value.Kind != yaml.SequenceNode {
				r.fault(value, "rules must be a list, each rule with a dash before it")
				return
			}
			for _, node := range value.Content {
				rules = append(rules, r.rule(node)...)
			}
		})
	}
	if !found && len(r.faults) == 0 {
		r.faults = append(r.faults, fmt.Errorf("%s: it has no rules", file))
	}
	if len(r.faults) > 0 {
		return agent.Policy{}, errors.Join(r.faults...)
	}
	return agent.PolicyOf(file, rules)
}

// rule reads a rule: one for each service that it names.
func (r *tunnelReader) rule(node *yaml.Node) (rules []agent.Rule) {
	var services []*yaml.Node
	var all agent.Rule
	decides := "" // the key that says whether it allows
	seen := map[string]bool{}
	before := len(r.faults)
	r.object(node, "a rule", func(key, value *yaml.Node) {
		if !r.known(key, "a rule", "allow", "deny", "protocols", "hours") || r.twice(key, seen) {
			return
		}
		values := r.texts(key, value)
		switch key.Value {
		case "allow", "deny":
			if decides != "" {
				r.fault(key, "the rule has %s already: it either allows or denies", decides)
			}
			decides, services, all.Allow = key.Value, values, key.Value == "allow"
		case "protocols":
			for _, v := range values {
				if !slices.Contains(agent.RuleProtocols, v.Value) {
					r.fault(v, "there is no protocol %q%s", v.Value, meant(v.Value, agent.RuleProtocols))
				}
				all.Protocols = append(all.Protocols, v.Value)
			}
		case "hours":
			for _, v := range values {
				h, err := agent.ParseHours(v.Value)
				if err != nil {
					r.fault(v, "hours: %v", err)
				}
				all.Hours = append(all.Hours, h)
			}
		}
	})
	if decides == "" && len(r.faults) == before {
		r.fault(node, "a rule needs allow or deny, with the services that it is about")
	}
	for _, v := range services {
		all.Service, all.Line = v.Value, v.Line
		rules = append(rules, all)
	}
	return rules
}

// texts gives the values of a key that takes one text or a list of them.
func (r *tunnelReader) texts(key, value *yaml.Node) (values []*yaml.Node) {
	nodes := []*yaml.Node{value}
	if value.Kind == yaml.SequenceNode {
		nodes = value.Content
	}
	for _, node := range nodes {
		if node.Kind != yaml.ScalarNode || node.Tag == "!!null" {
			r.fault(node, "%s must be a text, or a list of texts", key.Value)
			continue
		}
		values = append(values, node)
	}
	if len(nodes) == 0 {
		r.fault(value, "%s has nothing in it", key.Value)
	}
	return values
}

// twice refuses a key that was there before.
func (r *tunnelReader) twice(key *yaml.Node, seen map[string]bool) bool {
	if seen[key.Value] {
		r.fault(key, "the key %q stands here twice", key.Value)
		return true
	}
	seen[key.Value] = true
	return false
}

// meant suggests the nearest word, or all.
func meant(word string, of []string) string {
	if near := nearest(word, of); near != "" {
		return fmt.Sprintf("; did you mean %q?", near)
	}
	return "; there are " + strings.Join(of, ", ")
}
