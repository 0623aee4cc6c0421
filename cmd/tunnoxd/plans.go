package main

import (
	"fmt"
	"os"

	"go.yaml.in/yaml/v3"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/httpapi"
)

// anonymousPlan holds the limits that anonymous clients begin with.
const anonymousPlan = "anonymous"

const (
	kib = int64(1) << 10
	mib = int64(1) << 20
	gib = int64(1) << 30
)

// defaultPlans are those of a server whose file says nothing of plans.
func defaultPlans() []httpapi.NamedPlan {
	n := func(v int64) *int64 { return &v }
	return []httpapi.NamedPlan{
		{Name: "free", Limits: domain.Limits{MaxClients: n(1), MaxMappings: n(1), MaxActiveMappings: n(1),
			TotalBandwidthLimit: n(512 * kib), MonthlyTrafficLimit: n(gib), MaxPublicPorts: n(1), MaxPublicHosts: n(1)}},
		{Name: "pro", Limits: domain.Limits{MaxClients: n(10), MaxMappings: n(50), MaxActiveMappings: n(50),
			TotalBandwidthLimit: n(10 * mib), MonthlyTrafficLimit: n(500 * gib), MaxPublicPorts: n(20), MaxPublicHosts: n(50)}},
		{Name: "enterprise", Limits: domain.Limits{TotalBandwidthLimit: n(100 * mib)}},
		{Name: anonymousPlan, Limits: domain.Limits{MaxClients: n(0), MaxMappings: n(5), MaxActiveMappings: n(5),
			MaxConnectionsPerMapping: n(100), TotalBandwidthLimit: n(512 * kib), MonthlyTrafficLimit: n(gib), MaxPublicPorts: n(0), MaxPublicHosts: n(0)}},
	}
}

// readPlans reads the section plans of the file: names with limits, null or left
// out for none. It takes the place of the default plans, but for the one of
// anonymous clients, which stays unless it is there.
func readPlans(path string) ([]httpapi.NamedPlan, []error) {
	section, err := plansSection(path)
	if err != nil || section == nil {
		return defaultPlans(), nil // what is wrong with the file itself is told with the settings
	}
	var errs []error
	fault := func(n *yaml.Node, format string, args ...any) {
		errs = append(errs, fmt.Errorf("--config %s:%d: plans: %s", path, n.Line, fmt.Sprintf(format, args...)))
	}
	if section.Kind != yaml.MappingNode {
		fault(section, "want names with limits, for example \"free: {max_clients: 1}\"")
		return nil, errs
	}
	var plans []httpapi.NamedPlan
	named := map[string]bool{}
	for i := 0; i+1 < len(section.Content); i += 2 {
		name, limits := section.Content[i], section.Content[i+1]
		if named[name.Value] || name.Value == "" || len(name.Value) > 100 {
			fault(name, "%q is no name of a plan, or stands twice", name.Value)
		}
		named[name.Value] = true
		if limits.Kind != yaml.MappingNode {
			fault(limits, "%s: want limits, for example {max_clients: 1}", name.Value)
			continue
		}
		var given map[string]*int64
		if err := limits.Decode(&given); err != nil {
			fault(limits, "%s: limits are whole numbers, or null for none", name.Value)
			continue
		}
		var of domain.Limits
		for j := 0; j < len(limits.Content); j += 2 {
			key := limits.Content[j]
			switch at, n := of.At(key.Value), given[key.Value]; {
			case at == nil:
				fault(key, "%s: there is no limit %q", name.Value, key.Value)
			case n != nil && *n < 0:
				fault(limits, "%s: limits are 0 or more", name.Value)
			default:
				*at = n
			}
		}
		plans = append(plans, httpapi.NamedPlan{Name: name.Value, Limits: of})
	}
	if !named[anonymousPlan] {
		defaults := defaultPlans()
		plans = append(plans, defaults[len(defaults)-1])
	}
	return plans, errs
}

// plansSection gives the node behind the key plans, nil without one.
func plansSection(path string) (*yaml.Node, error) {
	if path == "" {
		return nil, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("--config: %w", err)
	}
	var root yaml.Node
	if err := yaml.Unmarshal(text, &root); err != nil || len(root.Content) == 0 {
		return nil, err
	}
	for body, i := root.Content[0], 0; i+1 < len(body.Content); i += 2 {
		if body.Content[i].Value == "plans" {
			return body.Content[i+1], nil
		}
	}
	return nil, nil
}

// limitsOf gives the limits of a plan; of one that is not there, none.
func limitsOf(plans []httpapi.NamedPlan, name string) domain.Limits {
	for _, p := range plans {
		if p.Name == name {
			return p.Limits
		}
	}
	return domain.Limits{}
}
