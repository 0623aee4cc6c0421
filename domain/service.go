package domain

import (
	"fmt"
	"net"
	"path"
	"strconv"
	"strings"
)

// Service is what the target agent reaches for a connection, known in advance: a host
// and a port, a unix socket or a directory. A socks5 mapping has none, because each of
// its clients names its own.
type Service struct {
	TargetHost   string `json:"target_host" required:"false" maxLength:"253" doc:"An IP address or a host name that the target resolves; left out for socks5, and where target says it" example:"127.0.0.1"`
	TargetPort   int    `json:"target_port" required:"false" minimum:"1" maximum:"65535" example:"80"`
	TargetLast   int    `json:"target_port_last,omitempty" minimum:"1" maximum:"65535" doc:"With a range of public ports: the last of as many ports of the service, of which target_port is the first; the first public port leads to the first one. Left out: all lead to target_port" example:"20009"`
	TargetScheme string `json:"target_scheme,omitempty" enum:"http,https,h2c" doc:"How the service of an http mapping is spoken to; https is not verified, h2c is HTTP/2 without TLS. Left out: http" example:"http"`
	Target       string `json:"target,omitempty" maxLength:"1029" doc:"In place of target_host, target_port and target_port_last: unix: and the path of a socket (tcp and http), file: and the path of a directory that the target agent serves (http), or host:port or host:from-to, which are shown as those fields" example:"unix:/run/app.sock"`
}

// ServiceKind says what kind of service the target agent reaches.
type ServiceKind string

// The kinds of services. Those with a path have the name that begins Target.
const (
	ServiceHost  ServiceKind = ""     // a host and a port
	ServiceUnix  ServiceKind = "unix" // a unix socket
	ServiceFiles ServiceKind = "file" // a directory
)

const (
	maxTargetPath = 1024 // bytes
	// maxSocketPath is what the address of a unix socket holds on Linux, less the final
	// zero byte (unix(7)).
	maxSocketPath = 107
)

// Kind tells which kind of service it is.
func (s Service) Kind() ServiceKind {
	for _, kind := range []ServiceKind{ServiceUnix, ServiceFiles} {
		if strings.HasPrefix(s.Target, string(kind)+":") {
			return kind
		}
	}
	return ServiceHost
}

// Address is what the target agent reaches: host:port, or the path of a socket or a
// directory.
func (s Service) Address() string {
	if kind := s.Kind(); kind != ServiceHost {
		return strings.TrimPrefix(s.Target, string(kind)+":")
	}
	return net.JoinHostPort(s.TargetHost, strconv.Itoa(s.TargetPort))
}

// At is the service for the nth public port of its mapping, from 0.
func (s Service) At(n int) Service {
	if s.TargetLast != 0 {
		s.TargetPort = min(s.TargetPort+n, s.TargetLast)
		s.TargetLast = 0
	}
	return s
}

// Text is the service for people: host:port, host:from-to, unix:PATH or file:PATH; "" for none.
func (s Service) Text() string {
	switch {
	case s.Target != "":
		return s.Target
	case s.TargetHost == "" && s.TargetPort == 0:
		return ""
	}
	if s.TargetLast != 0 {
		return s.Address() + "-" + strconv.Itoa(s.TargetLast)
	}
	return s.Address()
}

// complete gives the service with host and port in place of their short form. What is
// no such form stays, and is a fault.
func (s Service) complete() Service {
	if s.Target == "" || s.Kind() != ServiceHost {
		return s
	}
	host, port, err := net.SplitHostPort(s.Target)
	ports, portErr := ParsePortRange(port)
	last := 0
	if strings.Contains(port, "-") {
		last = ports.Last
	}
	if err != nil || portErr != nil || ports.First > 65535 || s.TargetHost != "" && s.TargetHost != host ||
		s.TargetPort != 0 && s.TargetPort != ports.First || s.TargetLast != 0 && s.TargetLast != last {
		return s
	}
	s.Target, s.TargetHost, s.TargetPort, s.TargetLast = "", host, ports.First, last
	return s
}

// instead gives a changed service without what the change has put something else in
// place of: who names a target need not empty target_host, and the other way round.
func (s Service) instead(was Service) Service {
	switch {
	case s.Target != was.Target && s.Target != "":
		if s.TargetHost == was.TargetHost && s.TargetPort == was.TargetPort && s.TargetLast == was.TargetLast {
			s.TargetHost, s.TargetPort, s.TargetLast = "", 0, 0
		}
	case s.TargetHost != was.TargetHost || s.TargetPort != was.TargetPort || s.TargetLast != was.TargetLast:
		s.Target = ""
	}
	return s
}

// check checks a complete service.
func (s Service) check(f *faults) {
	kind := s.Kind()
	switch {
	case kind == ServiceHost && s.Target == "":
		f.host("target_host", s.TargetHost)
		f.bounds(s)
		return
	case s.TargetHost != "" || s.TargetPort != 0 || s.TargetLast != 0:
		f.add("target", "says what target_host and target_port say otherwise: leave one of them out")
	case kind == ServiceHost:
		f.add("target", "must be host:port, unix: and an absolute path, or file: and an absolute path")
	default:
		f.targetPath("target", kind, s.Address())
	}
	f.bounds(struct {
		TargetScheme string `json:"target_scheme,omitempty" enum:"http,https,h2c"`
	}{s.TargetScheme})
}

// servicePorts checks that a service with several ports has one for each public port.
func (f *faults) servicePorts(field string, s Service, kind OriginKind, public PortRange) {
	if s.TargetLast == 0 {
		return
	}
	ports := PortRange{s.TargetPort, s.TargetLast}
	switch {
	case kind != OriginPort:
		f.add(field, "is for a mapping with a range of public ports")
	case s.TargetLast <= s.TargetPort:
		f.add(field, "must be above the first port")
	case ports.Count() != public.Count():
		f.add(field, fmt.Sprintf("must give as many ports as public_port, which has %d; the service has %d", max(public.Count(), 1), ports.Count()))
	}
}

// targetPath checks a path at the target agent's machine, whatever system that has.
func (f *faults) targetPath(field string, kind ServiceKind, p string) {
	most := maxTargetPath
	if kind == ServiceUnix {
		most = maxSocketPath
	}
	f.text(field, p, 0, maxTargetPath)
	slashes := strings.ReplaceAll(p, `\`, "/")
	if len(slashes) > 2 && slashes[1] == ':' && (slashes[0]|0x20 >= 'a' && slashes[0]|0x20 <= 'z') { // C:\www
		slashes = slashes[2:]
	} else {
		slashes = p
	}
	switch {
	case len(p) > most:
		f.add(field, fmt.Sprintf("must have a path of up to %d bytes, has %d", most, len(p)))
	case !strings.HasPrefix(slashes, "/"):
		f.add(field, fmt.Sprintf("must have an absolute path, for example %s:/%s", kind, map[ServiceKind]string{ServiceUnix: "run/app.sock", ServiceFiles: "srv/www"}[kind]))
	case path.Clean(slashes) != slashes:
		f.add(field, "must have its path in the shortest form, which is "+string(kind)+":"+p[:len(p)-len(slashes)]+path.Clean(slashes))
	}
}
