package domain

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// Target is one of several services of a mapping, each behind a client of the mapping's
// user.
//
// Rules: the first target is the mapping's target client and service, which never has
// another client. A connection goes to the least loaded of those that answer, and on to
// the next one where nobody does. A client that is deleted stays in the list and is passed
// over.
type Target struct {
	ClientID int64  `json:"client_id" minimum:"1" doc:"A client of the mapping's user that dials this service" example:"600000001"`
	Target   string `json:"target" maxLength:"1029" doc:"As target of the mapping: host:port, unix:PATH or file:PATH" example:"127.0.0.1:3000"`
	Weight   int    `json:"weight,omitempty" minimum:"1" maximum:"100" doc:"The share of connections, beside the weights of the others. Left out: 1" example:"1"`
}

// MaxTargets is how many targets a mapping may have.
const MaxTargets = 16

// Service gives the service of the target, as a mapping has it.
func (t Target) Service() Service { return Service{Target: t.Target}.complete() }

// Share is the weight, 1 when nobody has set it.
func (t Target) Share() int { return max(t.Weight, 1) }

// Ends are the clients that the mapping has to do with: the source, the target and those
// of further targets.
func (m *Mapping) Ends() []int64 { return ends(m.SourceClientID, m.TargetClientID, m.furtherClients()) }

// HasEnd tells whether a client is one of the mapping's ends.
func (m *Mapping) HasEnd(client int64) bool { return client != 0 && slices.Contains(m.Ends(), client) }

func ends(source, target int64, further []int64) (all []int64) {
	for _, client := range append([]int64{source, target}, further...) {
		if client != 0 && !slices.Contains(all, client) {
			all = append(all, client)
		}
	}
	return all
}

// furtherClients are the clients of the targets that are not the mapping's target client.
func (m *Mapping) furtherClients() (clients []int64) {
	for _, t := range m.Targets {
		if t.ClientID != m.TargetClientID && !slices.Contains(clients, t.ClientID) {
			clients = append(clients, t.ClientID)
		}
	}
	return clients
}

// AllTargets are the targets of the mapping, also when there is one only.
func (m *Mapping) AllTargets() []Target {
	if len(m.Targets) > 0 {
		return m.Targets
	}
	return []Target{{ClientID: m.TargetClientID, Target: m.Service.Text()}}
}

// fromTargets gives the service that the first target says, where nobody says another.
func (p Parts) fromTargets() Parts {
	if len(p.Targets) > 0 && p.Service.Text() == "" {
		scheme := p.TargetScheme
		p.Service = p.Targets[0].Service()
		p.TargetScheme = scheme
	}
	return p
}

// withTargets makes the first target and the service one again after a change of one of
// them.
func (p Parts) withTargets(was Parts) Parts {
	switch {
	case len(p.Targets) == 0:
	case !reflect.DeepEqual(p.Targets, was.Targets) && p.Service.Text() == was.Service.Text():
		scheme := p.TargetScheme
		p.Service = p.Targets[0].Service()
		p.TargetScheme = scheme
	case reflect.DeepEqual(p.Targets, was.Targets) && p.Service.Text() != was.Service.Text():
		p.Targets = slices.Clone(p.Targets)
		p.Targets[0].Target = p.Service.Text()
	}
	return p
}

// targets checks the targets of a mapping to a client.
func (f *faults) targets(p Protocol, target int64, parts Parts) {
	all := parts.Targets
	if len(all) == 0 {
		return
	}
	if len(all) > MaxTargets {
		f.add("targets", fmt.Sprintf("may be up to %d, are %d", MaxTargets, len(all)))
	}
	if all[0].ClientID != target {
		f.add("targets[0].client_id", fmt.Sprintf("must be target_client_id, %d, which never changes", target))
	}
	if all[0].Service().Text() != parts.Service.Text() {
		f.add("targets[0].target", "must be the target of the mapping: leave target, target_host and target_port out")
	}
	seen := map[Target]bool{}
	for i, t := range all {
		field := fmt.Sprintf("targets[%d].", i)
		var of faults
		of.bounds(t)
		s := t.Service()
		s.check(&of)
		switch {
		case s.Kind() == ServiceFiles && p != ProtocolHTTP:
			of.add("target", "is a directory, which mappings of protocol http serve")
		case s.Kind() != parts.Service.Kind() && ServiceFiles == cmp.Or(s.Kind(), parts.Service.Kind()):
			of.add("target", "must be a directory for all targets, or for none")
		}
		for _, fault := range of.list {
			if strings.HasPrefix(fault.Field, "target") {
				fault.Field = "target"
			}
			f.add(field+fault.Field, fault.Message)
		}
		t.Weight = 0
		if seen[t] {
			f.add(field+"target", "stands in the list twice")
		}
		seen[t] = true
	}
}

// ownTargets refuses targets behind clients that are not the user's, but for those that
// the mapping has had.
func (s States) ownTargets(targets []Target, user int64, had func(client int64) bool) error {
	var streams []StreamID
	for _, t := range targets {
		if !had(t.ClientID) {
			streams = append(streams, ClientStream(t.ClientID))
		}
	}
	if err := s.need(streams...); err != nil {
		return err
	}
	for i, t := range targets {
		if had(t.ClientID) {
			continue
		}
		if err := s.ownClient(t.ClientID, user, "target", false); err != nil {
			return refuseAt(CodeOf(err), err.Error(), fmt.Sprintf("targets[%d].client_id", i))
		}
	}
	return nil
}
