package domain

import (
	"net"
	"strconv"
)

// Service is what the target agent dials for a connection: a host and a port, known in
// advance. A socks5 mapping has none, because each of its clients names its own.
type Service struct {
	TargetHost   string `json:"target_host" required:"false" maxLength:"253" doc:"An IP address or a host name that the target resolves; left out for socks5" example:"127.0.0.1"`
	TargetPort   int    `json:"target_port" required:"false" minimum:"1" maximum:"65535" example:"80"`
	TargetScheme string `json:"target_scheme,omitempty" enum:"http,https,h2c" doc:"How the service of an http mapping is spoken to; https is not verified, h2c is HTTP/2 without TLS. Left out: http" example:"http"`
}

// Address is what the target agent dials, host:port.
func (s Service) Address() string { return net.JoinHostPort(s.TargetHost, strconv.Itoa(s.TargetPort)) }

func (s Service) check(f *faults) {
	f.host("target_host", s.TargetHost)
	f.bounds(s)
}
