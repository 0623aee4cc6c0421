package domain

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// Port is a public port of the cluster, with the mapping that has it for each protocol.
// One number can belong to one mapping for tcp and to another for udp.
//
// Rules: a port belongs to one mapping at a time. It is an aggregate of its own: two
// commands that ask for one port at the same moment write into one event stream, and
// one of them is refused. For an hour after a port was freed only its last user can have
// it, because visitors may still connect to it.
type Port struct {
	Number int
	Uses   map[Protocol]PortUse
}

// PortUse tells which mapping has a port, or which user had it last.
type PortUse struct {
	MappingID int64 // 0 = nobody, since FreedAt
	UserID    int64
	FreedAt   time.Time
}

// PortKept is how long a freed port is kept for the user who had it.
const PortKept = time.Hour

// Events of a port.
type (
	// PortTaken gives a port to a mapping.
	PortTaken struct {
		Port      int      `json:"port"`
		Protocol  Protocol `json:"protocol"`
		MappingID int64    `json:"mapping_id"`
		UserID    int64    `json:"user_id"`
	}
	// PortFreed takes it back.
	PortFreed struct {
		Protocol Protocol `json:"protocol"`
	}
)

// EventName implements [Event].
func (PortTaken) EventName() string { return "port_taken" }

// EventName implements [Event].
func (PortFreed) EventName() string { return "port_freed" }

// Exists implements [Aggregate].
func (p *Port) Exists() bool { return p.Number != 0 }

// Clone implements [Aggregate].
func (p *Port) Clone() Aggregate { return &Port{p.Number, maps.Clone(p.Uses)} }

// Apply implements [Aggregate].
func (p *Port) Apply(event Event, at time.Time) {
	switch e := event.(type) {
	case PortTaken:
		if p.Uses == nil {
			p.Uses = map[Protocol]PortUse{}
		}
		p.Number = e.Port
		p.Uses[e.Protocol] = PortUse{MappingID: e.MappingID, UserID: e.UserID}
	case PortFreed:
		if use, ok := p.Uses[e.Protocol]; ok {
			use.MappingID, use.FreedAt = 0, at
			p.Uses[e.Protocol] = use
		}
	}
}

// freeFor reports whether a mapping of the user may have the port now.
func (p *Port) freeFor(user int64, protocol Protocol, now time.Time) bool {
	use, used := p.Uses[protocol]
	switch {
	case !used:
		return true
	case use.MappingID != 0:
		return false
	}
	return use.UserID == user || !now.Before(use.FreedAt.Add(PortKept))
}

// Refusals of public ports.
const (
	CodePortTaken        Code = "port_taken"
	CodePortsTaken       Code = "ports_taken" // none of the drawn ports is free
	CodeQuotaPublicPorts Code = "quota_public_ports"
)

// choosePort gives the public ports for a mapping: those that it names, all or none, or
// the first free one of the drawn ports. A mapping may keep the ports that it has.
func (s States) choosePort(o PublicOffer, m *Mapping) (PortRange, error) {
	protocol, wanted := m.Protocol, m.PublicPort
	if !o.Known {
		return PortRange{}, refuseAt(CodePublicUnavailable, "The servers cannot tell now which forwarders have public ports. Try again in a moment.", "public_port")
	}
	if len(o.Ports) == 0 {
		return PortRange{}, refuseAt(CodePublicUnavailable, "No forwarder has public ports. Start one with --public-ports FROM-TO.", "public_port")
	}
	if wanted != (PortRange{}) {
		if !slices.ContainsFunc(o.Ports, func(r PortRange) bool { return r.Holds(wanted) }) {
			which := "port"
			if wanted.Count() > 1 {
				which = "ports"
			}
			return PortRange{}, refuseAt(CodePublicUnavailable, fmt.Sprintf("No forwarder has the public %s %s. Choose of %s, or name none to get any.", which, wanted, rangesText(o.Ports)), "public_port")
		}
		if err := s.need(portStreams(wanted)...); err != nil {
			return PortRange{}, err
		}
		for _, port := range wanted.All() {
			if s.port(port).Uses[protocol].MappingID != m.ID && !s.port(port).freeFor(m.UserID, protocol, o.Now) {
				return PortRange{}, refuseAt(CodePortTaken, fmt.Sprintf("The public port %d is taken for %s, or was a moment ago. Name another, or 0 to have one chosen.", port, protocol), "public_port")
			}
		}
		return wanted, nil
	}
	streams := make([]StreamID, len(o.Draw))
	for i, candidate := range o.Draw {
		streams[i] = PortStream(candidate)
	}
	if err := s.need(streams...); err != nil {
		return PortRange{}, err
	}
	for _, candidate := range o.Draw {
		if s.port(candidate).freeFor(m.UserID, protocol, o.Now) {
			return OnePort(candidate), nil
		}
	}
	return PortRange{}, refuseAt(CodePortsTaken, fmt.Sprintf("No public port is free for %s. There are %s.", protocol, rangesText(o.Ports)), "public_port")
}

func rangesText(ranges []PortRange) string {
	text := ""
	for i, r := range ranges {
		if i > 0 {
			text += ", "
		}
		text += fmt.Sprintf("%d-%d", r.First, r.Last)
	}
	return text
}

func portStreams(r PortRange) []StreamID {
	streams := make([]StreamID, 0, r.Count())
	for _, port := range r.All() {
		streams = append(streams, PortStream(port))
	}
	return streams
}

// takePorts plans the events that give a mapping its public ports, but those that it
// has already.
func (d *Decision) takePorts(m *Mapping, has PortRange) {
	for _, port := range portsBeside(m.PublicPort, has) {
		d.addOwned(m.UserID, PortStream(port), PortTaken{Port: port, Protocol: m.Protocol, MappingID: m.ID, UserID: m.UserID})
	}
}

// freePorts plans the events that free the public ports of a mapping, but those that it
// keeps.
func (d *Decision) freePorts(m *Mapping, keeps PortRange) {
	for _, port := range portsBeside(m.PublicPort, keeps) {
		d.addOwned(m.UserID, PortStream(port), PortFreed{Protocol: m.Protocol})
	}
}
