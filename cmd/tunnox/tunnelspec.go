package main

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
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

// encrypted gives the tunnel a word for how connections are encrypted; "" = the server's.
func (s spec) encrypted(how string) (spec, error) {
	switch how {
	case "":
	case domain.EncryptionE2E, "transport":
		s.wish.Parts["encryption"] = how
	default:
		return s, usageError("the encryption %q: want e2e, from agent to agent, or transport", how)
	}
	return s, nil
}

// isPlace tells whether a service is a unix socket or a directory, unix:PATH or file:PATH.
func isPlace(service string) bool {
	return strings.HasPrefix(service, "unix:") || strings.HasPrefix(service, "file:")
}

// ruled gives the tunnel rules for its visitors.
func (s spec) ruled(rules publicRules) spec {
	rules.into(s.wish.Parts)
	return s
}

// serviceParts are the parts of a mapping that name the service: PORT, HOST:PORT, or
// unix:PATH with an absolute path.
func serviceParts(text string) (map[string]any, error) {
	if strings.HasPrefix(text, "file:") {
		return nil, usageError("%q: a directory is served over http only: tunnox http %[1]s", text)
	}
	if path, ok := strings.CutPrefix(text, "unix:"); ok {
		if path == "" {
			return nil, usageError("%q is no service: want unix:PATH with the path of a socket", text)
		}
		return map[string]any{"target": text}, nil
	}
	host, port := "127.0.0.1", text
	if strings.Contains(text, ":") {
		var err error
		if host, port, err = net.SplitHostPort(text); err != nil {
			return nil, usageError("%q is no service: want a port such as 3000, HOST:PORT or unix:PATH", text)
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

// localParts is serviceParts for a service of this machine: a path may be relative to a
// directory, "" for the present one, because it is made absolute here.
func localParts(text, dir string) (map[string]any, error) {
	if path, ok := strings.CutPrefix(text, "unix:"); ok && path != "" {
		path, err := absolute(path, dir)
		if err != nil {
			return nil, err
		}
		return map[string]any{"target": "unix:" + path}, nil
	}
	return serviceParts(text)
}

func absolute(path, dir string) (string, error) {
	if !filepath.IsAbs(path) {
		path = filepath.Join(dir, path)
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("the directory of this program: %w", err)
	}
	return path, nil
}

// directoryOf gives the directory that a service names: file:PATH, or a path that can be
// nothing else, such as . and ./site and /srv/www.
func directoryOf(service string) (path string, ok bool) {
	if path, ok := strings.CutPrefix(service, "file:"); ok {
		return path, true
	}
	slashes := filepath.ToSlash(service)
	return service, slashes == "." || slashes == ".." || strings.HasPrefix(slashes, "./") || strings.HasPrefix(slashes, "../") || filepath.IsAbs(service)
}

// directoryParts are the parts of a mapping that name a directory of this machine.
func directoryParts(path, dir string, files filesFlags) (map[string]any, error) {
	path, err := absolute(path, dir)
	if err != nil {
		return nil, err
	}
	if info, err := os.Stat(path); err != nil {
		return nil, usageError("there is no directory %s to serve: %v", path, errors.Unwrap(err))
	} else if !info.IsDir() {
		return nil, usageError("%s is a file: name the directory that it is in", path)
	}
	parts := map[string]any{"target": "file:" + path}
	if how := files.parts(); len(how) > 0 {
		parts["files"] = how
	}
	return parts, nil
}

// filesFlags say how a directory is served.
type filesFlags struct{ listing, dotFiles bool }

func (f filesFlags) parts() map[string]any {
	how := map[string]any{}
	if f.listing {
		how["listing"] = true
	}
	if f.dotFiles {
		how["dot_files"] = true
	}
	return how
}

func serviceText(parts map[string]any) string {
	if at, ok := parts["target"].(string); ok {
		return at
	}
	return net.JoinHostPort(fmt.Sprint(parts["target_host"]), fmt.Sprint(parts["target_port"]))
}

// publicSpec is a service of this machine with a public port.
func publicSpec(protocol, service, dir string, port int) (spec, error) {
	parts, err := localParts(service, dir)
	if err != nil {
		return spec{}, err
	}
	if _, ok := parts["target"]; ok && protocol == "udp" {
		return spec{}, usageError("%q is a unix socket, which carries no UDP here", service)
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

// website is a web service of this machine, and where it is to be had. host is a label
// under the server's base domain, path the part of the host that it has; both may be left
// out.
type website struct {
	service    string
	dir        string // of a service that is a relative path
	host, path string
	files      filesFlags
}

// parts are the parts of a mapping that name the service.
func (w website) parts() (map[string]any, error) {
	if path, ok := directoryOf(w.service); ok {
		return directoryParts(path, w.dir, w.files)
	}
	if len(w.files.parts()) > 0 {
		return nil, usageError("%q is no directory: listing and dot files are for one, such as ./site", w.service)
	}
	scheme, rest, isURL := strings.Cut(w.service, "://")
	switch port := map[string]string{"http": ":80", "https": ":443", "h2c": ":80"}[scheme]; {
	case !isURL:
		scheme, rest = "http", w.service
	case port == "":
		return nil, usageError("%q: services are spoken to over http, https or h2c", w.service)
	default:
		rest = strings.TrimSuffix(rest, "/")
		switch {
		case rest == "":
			return nil, usageError("%q names no host", w.service)
		case strings.Contains(rest, "/"):
			return nil, usageError("%q: want the service without a path; visitors name the path", w.service)
		}
		if !strings.Contains(strings.TrimLeft(rest[strings.LastIndexByte(rest, ']')+1:], "]"), ":") {
			rest += port
		}
	}
	if info, err := os.Stat(filepath.Join(w.dir, rest)); err == nil && info.IsDir() && strings.Trim(rest, "0123456789") != "" {
		return nil, usageError("%q: write ./%[1]s to serve this directory", rest)
	}
	parts, err := localParts(rest, w.dir)
	if err == nil && scheme != "http" {
		parts["target_scheme"] = scheme
	}
	return parts, err
}

// httpSpec is a web service of this machine with a public URL.
func httpSpec(w website) (spec, error) {
	parts, err := w.parts()
	if err != nil {
		return spec{}, err
	}
	if w.host != "" {
		parts["public_host"] = strings.ToLower(w.host)
	}
	if w.path != "" {
		parts["public_path"] = w.path
	}
	to := serviceText(parts)
	if !isPlace(to) {
		scheme, _ := parts["target_scheme"].(string) // not there for http
		to = cmp.Or(scheme, "http") + "://" + to
	}
	return spec{agent.Tunnel{Kind: agent.TunnelPublic, Protocol: "http", Parts: parts}, func(n agent.TunnelNews) (map[string]any, string) {
		url := n.Mapping.PublicAddress
		value, text := map[string]any{"url": url}, fmt.Sprintf("ready: %s -> %s", url, to)
		if n.Inspector != "" {
			value["inspector"] = n.Inspector
			text += "\nrequests: " + n.Inspector
		}
		return value, text
	}}, nil
}

// tlsSpec is a TLS service of this machine with a public host of its own.
func tlsSpec(service, host string) (spec, error) {
	parts, err := serviceParts(service)
	if err != nil {
		return spec{}, err
	}
	if host != "" {
		parts["public_host"] = strings.ToLower(host)
	}
	return spec{agent.Tunnel{Kind: agent.TunnelPublic, Protocol: "tls", Parts: parts}, func(n agent.TunnelNews) (map[string]any, string) {
		url := n.Mapping.PublicAddress
		return map[string]any{"url": url}, fmt.Sprintf("ready: %s -> %s", url, serviceText(parts))
	}}, nil
}

// inspected has the requests of a web service shown.
func (s *spec) inspected() error {
	switch s.wish.Parts["target_scheme"] {
	case "https":
		return usageError("what passes to an https service is encrypted and cannot be inspected: name where it speaks http")
	case "h2c":
		return usageError("the inspector reads HTTP/1.1, not HTTP/2: name where the service speaks http, or leave --inspect out")
	}
	s.wish.Inspect = true
	return nil
}

// exposeSpec is a service of this machine for who has the code.
func exposeSpec(service, dir string, uses, seconds uint32, where func() string) (spec, error) {
	parts, err := localParts(service, dir)
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

// socksSpec is a SOCKS proxy here, whose connections begin at another machine. password
// gives what its clients must prove themselves with, when there is a user name.
func socksSpec(client, listen, username string, password func() (string, error)) (spec, error) {
	if client == "" || strings.Contains(client, ":") {
		return spec{}, usageError("%q: want the name or id of a client", client)
	}
	parts := map[string]any{}
	if listen != "" {
		if err := listenParts(parts, listen); err != nil {
			return spec{}, err
		}
	}
	if username != "" {
		text, err := password()
		if err != nil {
			return spec{}, err
		}
		parts["socks"] = map[string]any{"username": username, "password": text}
	}
	return spec{agent.Tunnel{Kind: agent.TunnelForward, Protocol: "socks5", Target: client, Parts: parts}, func(n agent.TunnelNews) (map[string]any, string) {
		return map[string]any{"listen": n.Listen}, fmt.Sprintf("ready: socks5://%s -> the network of %s", n.Listen, client)
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
