package domain

import (
	"strings"
	"time"
)

// What is public of a mapping is a port or a host: an aggregate of its own, which is
// written in the append of its mapping.

// PublicOffer is what there is to be had at the moment of a command, which only its
// edge knows: who decides has no directory, no clock and no dice.
type PublicOffer struct {
	Known   bool                  // somebody has looked
	Ports   []PortRange           // that forwarders have
	Draw    []int                 // ports to choose from, for who names none
	Domains map[Protocol][]string // under which forwarders serve hosts of a protocol
	Labels  []string              // hosts to choose from, for who names none
	APIs    []string              // hosts of the server's own API, in full
	Now     time.Time
}

// PublicCommand is a command that may ask for something public.
type PublicCommand interface {
	Command
	// WantsPublic reports whether it does.
	WantsPublic() bool
	// Offered gives the command with what there is to be had.
	Offered(o PublicOffer) Command
}

// CodePublicUnavailable says that no forwarder has what is asked for.
const CodePublicUnavailable Code = "public_unavailable"

// choosePublic gives the origin of a mapping with what is public of it chosen, if there
// is anything.
func (s States) choosePublic(o PublicOffer, m *Mapping) (origin Origin, err error) {
	origin = m.Origin
	switch m.OriginKind() {
	case OriginPort:
		origin.PublicPort, err = s.choosePort(o, m)
	case OriginHost:
		origin.PublicHost, err = s.chooseHost(o, m)
	}
	return origin, err
}

// URL gives where visitors reach a mapping with a public host. hosts is such as
// https://*.t.example.org:8443; of it a host of another domain has scheme and port.
func (m *Mapping) URL(hosts string) string {
	stands := "*"
	if strings.Contains(m.PublicHost, ".") {
		_, at, _ := strings.Cut(hosts, "://")
		stands, _, _ = strings.Cut(at, ":")
	}
	return strings.Replace(hosts, stands, m.PublicHost, 1) + m.PublicPath
}

// publicStreams are the event streams of what is public of a mapping.
func (m *Mapping) publicStreams() []StreamID {
	switch m.OriginKind() {
	case OriginPort:
		return portStreams(m.PublicPort)
	case OriginHost:
		return []StreamID{HostStream(m.PublicHost)}
	}
	return nil
}

// takePublic plans that a mapping has what is public of it. was is the mapping as it was
// before a change; an empty one has nothing.
func (d *Decision) takePublic(m, was *Mapping) {
	switch m.OriginKind() {
	case OriginPort:
		d.takePorts(m, was.PublicPort)
	case OriginHost:
		d.takeHost(m)
	}
}

// freePublic plans that a mapping has it no longer, but what it has after a change.
func (d *Decision) freePublic(m, next *Mapping) {
	switch m.OriginKind() {
	case OriginPort:
		d.freePorts(m, next.PublicPort)
	case OriginHost:
		d.freeHost(m)
	}
}
