package domain

import (
	"fmt"
	"slices"
)

// Protocol is what a mapping carries.
type Protocol string

// The protocols, in one place for every layer.
const (
	ProtocolTCP    Protocol = "tcp"
	ProtocolUDP    Protocol = "udp"
	ProtocolHTTP   Protocol = "http"
	ProtocolSOCKS5 Protocol = "socks5"
	ProtocolTLS    Protocol = "tls" // passed through unopened, to the host that the visitor's handshake names
)

// OriginKind says who listens for the connections of a mapping.
type OriginKind string

// The kinds of origins.
const (
	OriginAgent OriginKind = "agent" // a listener of the source agent
	OriginPort  OriginKind = "port"  // a public port of forwarders
	OriginHost  OriginKind = "host"  // a public host of forwarders
)

// where says it to people.
func (k OriginKind) where() string {
	switch k {
	case OriginPort:
		return "a public port"
	case OriginHost:
		return "a public host"
	}
	return "a source client"
}

// originKind is the kind of the origin of a mapping with this source client and
// protocol.
func originKind(sourceClientID int64, p Protocol) OriginKind {
	switch {
	case sourceClientID != 0:
		return OriginAgent
	case p == ProtocolHTTP, p == ProtocolTLS:
		return OriginHost
	}
	return OriginPort
}

// OriginKind tells where the connections of the mapping come in.
func (m *Mapping) OriginKind() OriginKind { return originKind(m.SourceClientID, m.Protocol) }

// protocol is a row of the table of protocols.
type protocol struct {
	name      Protocol
	available bool         // this version carries it
	carried   Protocol     // what the target agent is asked to carry for it; "" = itself
	origins   []OriginKind // where its connections may come in
	check     func(f *faults, p Parts)
	claims    func(m *Mapping) []Claim
}

// protocols is the table. The enums of the API, the flags, help and completion of the
// command line, the checks, the claims and the share codes are made from it.
var protocols = []protocol{
	{name: ProtocolTCP, available: true, origins: []OriginKind{OriginAgent, OriginPort}, check: checkFixed, claims: claimListener},
	{name: ProtocolUDP, available: true, origins: []OriginKind{OriginAgent, OriginPort}, check: checkUDP, claims: claimListener},
	{name: ProtocolHTTP, available: true, carried: ProtocolTCP, origins: []OriginKind{OriginHost}, check: checkHTTP, claims: claimListener},
	{name: ProtocolSOCKS5, available: true, origins: []OriginKind{OriginAgent}, check: checkChosen, claims: claimListener},
	{name: ProtocolTLS, available: true, carried: ProtocolTCP, origins: []OriginKind{OriginHost}, check: checkTLS, claims: claimListener},
}

// checkFixed checks the parts of a protocol whose service is known in advance.
func checkFixed(f *faults, p Parts) {
	p.Service.check(f)
	if p.TargetScheme != "" {
		f.add("target_scheme", "is for mappings of protocol http")
	}
	if p.Kind() == ServiceFiles {
		f.add("target", "is a directory, which mappings of protocol http serve")
	}
}

// checkUDP is for a protocol whose service is a host and a port.
func checkUDP(f *faults, p Parts) {
	checkFixed(f, p)
	if p.Kind() == ServiceUnix {
		f.add("target", "is a unix socket, which mappings of protocol tcp and http reach")
	}
}

// checkTLS checks the parts of a protocol whose host is all that a visitor says in clear.
func checkTLS(f *faults, p Parts) {
	checkFixed(f, p)
	if p.PublicPath != "" && p.PublicPath != "/" {
		f.add("public_path", "is for mappings of protocol http: a tls mapping has all of its host")
	}
}

// checkHTTP checks the parts of a protocol that the forwarder speaks to the service.
func checkHTTP(f *faults, p Parts) {
	p.Service.check(f)
	switch files := p.Kind() == ServiceFiles; {
	case files && p.TargetScheme != "" && p.TargetScheme != "http":
		f.add("target_scheme", "is not for a directory: leave it out")
	case !files && p.Files != nil:
		f.add("files", "is for a target that is a directory, such as file:/srv/www")
	}
}

// checkChosen is for a protocol whose clients say for each connection where it goes.
func checkChosen(f *faults, p Parts) {
	if p.Service != (Service{}) {
		f.add("target_host", "is what each client of a socks5 mapping asks for: leave target_host, target_port and target out")
	}
}

// claimListener claims the listener address at the source agent. A public port or host
// needs no claim, because it is an aggregate of its own.
func claimListener(m *Mapping) []Claim {
	if m.Public() {
		return nil
	}
	return []Claim{{Scope: ClaimListener, Owner: MappingStream(m.ID),
		Value: fmt.Sprintf("%d/%s/%s", m.SourceClientID, m.Protocol, m.Origin.address())}}
}

// wheres names the places where the protocol's connections may come in, for people.
func (p *protocol) wheres() string {
	var names []string
	for _, kind := range p.origins {
		names = append(names, kind.where())
	}
	return anyOf(names)
}

// checkService checks the service of what is not a mapping yet.
func (p Protocol) checkService(f *faults, s Service) {
	row := p.row()
	if row == nil {
		row = &protocols[0] // the protocol is a fault already; the others are told with it
	}
	row.check(f, Parts{Service: s})
}

// row gives the row of a protocol, nil for an unknown one.
func (p Protocol) row() *protocol {
	i := slices.IndexFunc(protocols, func(row protocol) bool { return row.name == p })
	if i < 0 {
		return nil
	}
	return &protocols[i]
}

// Known reports whether the protocol has a name here, available or not.
func (p Protocol) Known() bool { return p.row() != nil }

// Available reports whether this version carries the protocol.
func (p Protocol) Available() bool { row := p.row(); return row != nil && row.available }

// What an agent says it carries beside the protocols: kinds of services, and UDP
// associations of socks5 mappings.
const (
	CarriedUnix        = "unix"
	CarriedFiles       = "files"
	CarriedAssociation = "socks5-udp"
)

// Carried is what the target agent is asked to carry: HTTP is spoken at the forwarder,
// and to the agent it is bytes like any other. A unix socket and a directory are what
// agents learned to reach later, so they are named.
func (m *Mapping) Carried() string {
	switch m.Kind() {
	case ServiceUnix:
		return CarriedUnix
	case ServiceFiles:
		return CarriedFiles
	}
	if row := m.Protocol.row(); row != nil && row.carried != "" {
		return string(row.carried)
	}
	return string(m.Protocol)
}

// Protocols lists the protocols that this version carries.
func Protocols() []Protocol {
	var names []Protocol
	for _, row := range protocols {
		if row.available {
			names = append(names, row.name)
		}
	}
	return names
}

// names gives the protocols as texts: those that are available, or all.
func protocolNames(all bool) (names []string) {
	for _, row := range protocols {
		if all || row.available {
			names = append(names, string(row.name))
		}
	}
	return names
}

// Unavailable is the refusal of a protocol that this version knows but does not carry,
// or nil.
func (p Protocol) Unavailable() error {
	if !p.Known() || p.Available() {
		return nil
	}
	return refuse(CodeProtocolUnavailable, fmt.Sprintf("This version carries %s mappings only, not %s.", anyOf(protocolNames(false)), p))
}

// protocol checks that there is such a protocol.
func (f *faults) protocol(p Protocol) {
	if !p.Known() {
		f.add("protocol", "must be "+anyOf(protocolNames(true)))
	}
}

// parts checks parts of a mapping that carries a protocol.
func (f *faults) parts(p Protocol, kind OriginKind, parts Parts) {
	f.text("name", parts.Name, 0, maxNameLength)
	parts.Origin.check(f, kind)
	row := p.row()
	if row == nil {
		row = &protocols[0] // the protocol is a fault already; the other faults belong in the same answer
	}
	if !slices.Contains(row.origins, kind) {
		f.add("protocol", fmt.Sprintf("%s cannot come in at %s, only at %s", p, kind.where(), row.wheres()))
	}
	row.check(f, parts)
	f.servicePorts("target_port_last", parts.Service, kind, parts.PublicPort)
	for i, t := range parts.Targets {
		f.servicePorts(fmt.Sprintf("targets[%d].target", i), t.Service(), kind, parts.PublicPort)
	}
	parts.Options.check(f, p, kind)
	parts.HeldBy.check(f, kind)
}

// claims are the unique names that a mapping holds.
func (m *Mapping) claims() []Claim {
	if row := m.Protocol.row(); row != nil {
		return row.claims(m)
	}
	return nil
}
