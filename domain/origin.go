package domain

import (
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// Origin is where the connections of a mapping come in: at a listener of the source
// agent, or at a public port or host of forwarders when there is no source client.
type Origin struct {
	LocalHost  string    `json:"local_host" required:"false" unset:"127.0.0.1" doc:"The IP address the source listens on; 127.0.0.1 when left out" example:"127.0.0.1"`
	LocalPort  int       `json:"local_port" required:"false" minimum:"1" maximum:"65535" doc:"The port the source listens on; left out when there is no source client" example:"8080"`
	PublicPort PortRange `json:"public_port,omitzero" doc:"Without a source client: the port of forwarders that visitors connect to, or up to 1024 of them as FROM-TO, all or none. 0 or left out: one is chosen and kept" example:"20000"`
	PublicHost string    `json:"public_host,omitempty" maxLength:"253" doc:"Of an http or tls mapping without a source client: the label under the forwarders' base domain that visitors ask for, or a domain that the user has verified. Left out: a label is chosen and kept" example:"brave-otter"`
	PublicPath string    `json:"public_path,omitempty" maxLength:"255" doc:"Of an http mapping with a public host: the path that it has of the host, with all below it. The longest one that fits wins. Left out: /" example:"/"`
}

// Listener is the address the source agent listens on, host:port.
func (o Origin) Listener() string { return net.JoinHostPort(o.LocalHost, strconv.Itoa(o.LocalPort)) }

// complete gives the origin with what was left out, and a host name in its one form.
func (o Origin) complete(kind OriginKind) Origin {
	switch kind {
	case OriginAgent:
		fillUnset(&o)
	case OriginHost:
		o.PublicHost = strings.ToLower(strings.TrimSuffix(o.PublicHost, "."))
		if o.PublicPath == "" {
			o.PublicPath = "/"
		}
	}
	return o
}

func (o Origin) check(f *faults, kind OriginKind) {
	if kind != OriginAgent && (o.LocalHost != "" || o.LocalPort != 0) {
		f.add("local_port", "is a port of the source client, and there is none: leave local_host and local_port out, or name source_client_id")
	}
	switch {
	case o.PublicPort == PortRange{}:
	case kind == OriginAgent:
		f.add("public_port", "is for a mapping without a source client: leave source_client_id out")
	case kind == OriginHost:
		f.add("public_port", "is for mappings of protocol tcp and udp: this one has a public_host")
	default:
		f.publicPorts("public_port", o.PublicPort)
	}
	for _, part := range []struct{ field, value string }{{"public_host", o.PublicHost}, {"public_path", o.PublicPath}} {
		switch {
		case part.value == "":
		case kind == OriginAgent:
			f.add(part.field, "is for a mapping without a source client: leave source_client_id out")
		case kind == OriginPort:
			f.add(part.field, "is for mappings of protocol http"+map[string]string{"public_host": " and tls"}[part.field])
		}
	}
	switch kind {
	case OriginAgent:
		o.checkListener(f)
	case OriginHost:
		f.publicHost("public_host", o.PublicHost)
		f.publicPath("public_path", o.PublicPath)
	}
}

// checkListener is for an origin where the source agent listens.
func (o Origin) checkListener(f *faults) {
	switch addr, err := netip.ParseAddr(o.LocalHost); {
	case err != nil || addr.Zone() != "":
		f.add("local_host", "must be an IP address, for example 127.0.0.1 or 0.0.0.0")
	case addr.Is4In6(): // no system opens a listener on one
		f.add("local_host", "must be written as "+addr.Unmap().String())
	}
	f.port("local_port", o.LocalPort)
}

// address is the listener in its one normal form: ::1 and 0:0::1 are one socket.
func (o Origin) address() string {
	host := o.LocalHost
	if addr, err := netip.ParseAddr(host); err == nil {
		host = addr.Unmap().String()
	}
	return net.JoinHostPort(host, strconv.Itoa(o.LocalPort))
}
