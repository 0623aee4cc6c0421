package main

import (
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/tunnox-net/tunnox/agent"
	"github.com/tunnox-net/tunnox/domain"
)

// spec is a tunnel to hold, and how it is shown when it is there.
type spec struct {
	wish  agent.Tunnel
	ready func(agent.TunnelNews) (asJSON map[string]any, text string)
}

// named gives the tunnel a name for people.
func (s spec) named(name string) spec {
	if name != "" {
		s.wish.Parts["name"] = name
	}
	return s
}

// serviceParts are the parts of a mapping that name the service: PORT, or HOST:PORT.
func serviceParts(text string) (map[string]any, error) {
	host, port := "127.0.0.1", text
	if strings.Contains(text, ":") {
		var err error
		if host, port, err = net.SplitHostPort(text); err != nil {
			return nil, usageError("%q is no service: want a port such as 3000, or HOST:PORT", text)
		}
	}
	if host == "" {
		host = "127.0.0.1"
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return nil, usageError("%q is no service: the port is a number from 1 to 65535", text)
	}
	return map[string]any{"target_host": host, "target_port": n}, nil
}

// listenParts are the parts of a mapping that say where it listens here.
func listenParts(parts map[string]any, text string) error {
	host, port := "", text
	if strings.Contains(text, ":") {
		var err error
		if host, port, err = net.SplitHostPort(text); err != nil {
			return usageError("%q is no address to listen on: want PORT, or ADDRESS:PORT", text)
		}
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return usageError("%q is no address to listen on: the port is a number from 1 to 65535", text)
	}
	if host == "localhost" {
		host = "127.0.0.1"
	}
	if host != "" {
		parts["local_host"] = host
	}
	parts["local_port"] = n
	return nil
}

func serviceText(parts map[string]any) string {
	return net.JoinHostPort(fmt.Sprint(parts["target_host"]), fmt.Sprint(parts["target_port"]))
}

// publicSpec is a service of this machine with a public port.
func publicSpec(protocol, service string, port int) (spec, error) {
	parts, err := serviceParts(service)
	if err != nil {
		return spec{}, err
	}
	if port < 0 || port > 65535 {
		return spec{}, usageError("the public port %d: want 1 to 65535, or 0 to have one chosen", port)
	}
	parts["public_port"] = port
	return spec{agent.Tunnel{Kind: agent.TunnelPublic, Protocol: protocol, Parts: parts}, func(n agent.TunnelNews) (map[string]any, string) {
		address := n.Mapping.PublicAddress
		return map[string]any{"address": address}, fmt.Sprintf("ready: %s -> %s", address, serviceText(parts))
	}}, nil
}

// httpSpec is a web service of this machine with a public URL. host is a label under
// the server's base domain, path the part of the host that it has; both may be left out.
func httpSpec(service, host, path string) (spec, error) {
	rest, isURL := strings.CutPrefix(service, "http://")
	if strings.HasPrefix(service, "https://") {
		return spec{}, usageError("%q: services are spoken to over http; https comes later. Give the port where it speaks http", service)
	}
	if isURL {
		rest = strings.TrimSuffix(rest, "/")
		if strings.Contains(rest, "/") {
			return spec{}, usageError("%q: want the service without a path; visitors name the path", service)
		}
		if !strings.Contains(rest, ":") {
			rest += ":80"
		}
	}
	parts, err := serviceParts(rest)
	if err != nil {
		return spec{}, err
	}
	if host != "" {
		parts["public_host"] = strings.ToLower(host)
	}
	if path != "" {
		parts["public_path"] = path
	}
	return spec{agent.Tunnel{Kind: agent.TunnelPublic, Protocol: "http", Parts: parts}, func(n agent.TunnelNews) (map[string]any, string) {
		url := n.Mapping.PublicAddress
		return map[string]any{"url": url}, fmt.Sprintf("ready: %s -> http://%s", url, serviceText(parts))
	}}, nil
}

// exposeSpec is a service of this machine for who has the code.
func exposeSpec(service string, uses, seconds uint32, where func() string) (spec, error) {
	parts, err := serviceParts(service)
	if err != nil {
		return spec{}, err
	}
	return spec{agent.Tunnel{Kind: agent.TunnelExpose, Protocol: "tcp", Parts: parts, Uses: uses, Seconds: seconds}, func(n agent.TunnelNews) (map[string]any, string) {
		good := "once"
		if uses > 1 {
			good = fmt.Sprintf("%d times", uses)
		}
		return map[string]any{"code": n.Code, "expires": n.Expires}, fmt.Sprintf("ready: %s is shared while this program runs. On the other machine:\n  tunnox get %s%s\nThe code is good %s, until %s.",
			serviceText(parts), n.Code, where(), good, timeText(n.Expires))
	}}, nil
}

// getSpec is a listener here for what a code leads to.
func getSpec(code, listen string) (spec, error) {
	if strings.HasPrefix(code, "tnxj_") {
		return spec{}, usageError("this code is an invitation, not the code of a service: use it with tunnox join")
	}
	if _, _, ok := domain.ParseShareCode(code); !ok { // the code is a secret: it is not printed
		return spec{}, usageError("the code is damaged: it must be a number and four groups of five letters or digits, for example 1234-ABCDE-FGHIJ-KLMNO-PQRST. Copy all of it")
	}
	parts := map[string]any{}
	if listen != "" {
		if err := listenParts(parts, listen); err != nil {
			return spec{}, err
		}
	}
	return spec{agent.Tunnel{Kind: agent.TunnelGet, Parts: parts, Code: code}, func(n agent.TunnelNews) (map[string]any, string) {
		what := "what was shared"
		if n.Mapping.Name != "" {
			what = n.Mapping.Name
		}
		return map[string]any{"listen": n.Listen}, fmt.Sprintf("ready: %s -> %s", n.Listen, what)
	}}, nil
}

// forwardSpec is a listener here for a service of another machine: CLIENT:PORT, or
// CLIENT:HOST:PORT.
func forwardSpec(protocol, listen, to string) (spec, error) {
	client, service, ok := strings.Cut(to, ":")
	if !ok || client == "" {
		return spec{}, usageError("%q: want CLIENT:PORT or CLIENT:HOST:PORT", to)
	}
	parts, err := serviceParts(service)
	if err != nil {
		return spec{}, err
	}
	if err := listenParts(parts, listen); err != nil {
		return spec{}, err
	}
	return spec{agent.Tunnel{Kind: agent.TunnelForward, Protocol: protocol, Target: client, Parts: parts}, func(n agent.TunnelNews) (map[string]any, string) {
		return map[string]any{"listen": n.Listen}, fmt.Sprintf("ready: %s -> %s:%s", n.Listen, client, service)
	}}, nil
}
