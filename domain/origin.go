package domain

import (
	"net"
	"net/netip"
	"strconv"
)

// Origin is where the connections of a mapping come in. Today that is a listener of
// the source agent. A kind of origin is told by the fields that are set.
type Origin struct {
	LocalHost string `json:"local_host,omitempty" unset:"127.0.0.1" doc:"The IP address the source listens on; 127.0.0.1 when left out" example:"127.0.0.1"`
	LocalPort int    `json:"local_port" minimum:"1" maximum:"65535" example:"8080"`
}

// Listener is the address the source agent listens on, host:port.
func (o Origin) Listener() string { return net.JoinHostPort(o.LocalHost, strconv.Itoa(o.LocalPort)) }

// complete gives the origin with what was left out.
func (o Origin) complete() Origin {
	fillUnset(&o)
	return o
}

func (o Origin) check(f *faults) {
	switch addr, err := netip.ParseAddr(o.LocalHost); {
	case err != nil || addr.Zone() != "":
		f.add("local_host", "must be an IP address, for example 127.0.0.1 or 0.0.0.0")
	case addr.Is4In6(): // no system opens a listener on one
		f.add("local_host", "must be written as "+addr.Unmap().String())
	}
	f.bounds(o)
}

// address is the listener in its one normal form: ::1 and 0:0::1 are one socket.
func (o Origin) address() string {
	host := o.LocalHost
	if addr, err := netip.ParseAddr(host); err == nil {
		host = addr.Unmap().String()
	}
	return net.JoinHostPort(host, strconv.Itoa(o.LocalPort))
}
