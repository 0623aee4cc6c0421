package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"

	"github.com/tunnox-net/tunnox/domain"
)

// Limits of descriptors. Every connection of an agent or a visitor needs one, and the
// server has some for itself.
const (
	descriptorsFailed = 1024
	descriptorsNoted  = 16384
)

// descriptors checks how many descriptors the server may have, and has.
func (e *exam) descriptors(ctx context.Context) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		e.report.Note("descriptors", "look at ulimit -n", "%v", err)
		return
	}
	most, used, of := float64(limit.Cur), 0.0, "for what is started here"
	if at := e.running["metrics"]; at != "" {
		if open, allowed, err := descriptorsOf(ctx, at); err == nil {
			most, used, of = allowed, open, "of the server that runs"
		}
	}
	const do = "raise the limit: LimitNOFILE=65536 in the unit, or ulimit -n 65536 before the start"
	text := fmt.Sprintf("%.0f, %s", most, of)
	if used > 0 {
		text = fmt.Sprintf("%.0f of %.0f in use, %s", used, most, of)
	}
	switch {
	case used > 0.9*most:
		e.report.Fail("descriptors", do+"; without one nobody can connect", "%s", text)
	case most < descriptorsFailed:
		e.report.Fail("descriptors", do, "%s: every connection needs one", text)
	case most < descriptorsNoted || used > 0.7*most:
		e.report.Note("descriptors", do, "%s: every connection needs one", text)
	default:
		e.report.Well("descriptors", "%s", text)
	}
}

// descriptorsOf reads from the metrics of a running server.
func descriptorsOf(ctx context.Context, metrics string) (open, most float64, err error) {
	ctx, cancel := context.WithTimeout(ctx, examLimit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+metrics+"/metrics", http.NoBody)
	if err != nil {
		return 0, 0, err
	}
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	resp, err := client.Do(req)
	if err != nil {
		return 0, 0, err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), " ")
		switch name {
		case "process_open_fds":
			open, err = strconv.ParseFloat(value, 64)
		case "process_max_fds":
			most, err = strconv.ParseFloat(value, 64)
		}
		if err != nil {
			return 0, 0, err
		}
	}
	if open == 0 || most == 0 {
		return 0, 0, errors.New("the server does not tell its descriptors")
	}
	return open, most, lines.Err()
}

// addresses checks whether the server can listen where it should. An address that the
// running server has is in use by us.
func (e *exam) addresses() {
	c := e.cfg
	for _, a := range []struct {
		flag, name, address string
		wanted              bool // where the role has it
	}{
		{"api", "api", c.API, c.Control == ""}, {"listen", "agents", c.Listen, true}, {"ws", "ws", c.WS, true}, {"metrics", "metrics", c.Metrics, true},
		{"state", "state", c.State, true}, {"bridge", "bridge", c.Bridge, c.State != "" || c.Control != ""},
		{"http", "http", c.HTTP, true}, {"https", "https", c.HTTPS, true}, {"tls", "tls", c.TLS, true},
	} {
		if a.address != "" && a.wanted {
			e.address("--"+a.flag+" "+a.address, a.address, e.running[a.name], c.tryoutHosts && (a.flag == "http" || a.flag == "tls"))
		}
	}
	if quic := c.QUIC; quic != quicOff {
		if quic == "" {
			quic = c.Listen
		}
		e.datagrams("quic", quic)
	}
	if visitors := c.http3(); c.HTTPS != "" && visitors != quicOff {
		if visitors == "" {
			visitors = c.HTTPS
		}
		e.datagrams("http3", visitors)
	}
	if ports := c.publicPorts(); ports != nil {
		e.publicPorts(domain.PortRange{First: ports.First, Last: ports.Last}, ports.Listen)
	}
}

// address checks one. ours is what the running server has bound for it; with another is
// one that is replaced by any free port.
func (e *exam) address(check, address, ours string, another bool) {
	if e.running != nil && ours != "" && samePort(address, ours) {
		e.report.Well(check, "in use by this server")
		return
	}
	l, err := listenTCP(address)
	if err == nil {
		_ = l.Close()
		e.report.Well(check, "free")
		return
	}
	switch {
	case another && errors.Is(err, syscall.EADDRINUSE):
		e.report.Well(check, "in use; the server takes another port")
	case errors.Is(err, syscall.EADDRINUSE):
		e.report.Fail(check, "end the program that has the port (ss -ltnp shows it), or choose another", "in use by another program")
	case errors.Is(err, syscall.EACCES):
		e.report.Fail(check, "ports below 1024 need a right: AmbientCapabilities=CAP_NET_BIND_SERVICE in the unit, or another port", "%v", err)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		e.report.Fail(check, "give an address of this machine; behind NAT listen on every address and advertise the one outside", "%v", err)
	case errors.Is(err, syscall.EMFILE):
		e.report.Fail(check, "see the line descriptors", "%v", err)
	default:
		e.report.Fail(check, "correct the address", "%v", err)
	}
}

// datagrams checks the UDP address of a setting that may be off.
func (e *exam) datagrams(setting, address string) {
	check := "--" + setting + " " + address + " (UDP)"
	if ours := e.running[setting]; ours != "" && samePort(address, ours) {
		e.report.Well(check, "in use by this server")
		return
	}
	socket, err := listenDatagrams(address)
	if err != nil {
		e.report.Fail(check, "end the program that has the port (ss -lunp shows it), choose another, or give --"+setting+" off", "%v", err)
		return
	}
	_ = socket.Close()
	e.report.Well(check, "free")
}

func samePort(a, b string) bool {
	_, one, err := net.SplitHostPort(a)
	_, other, otherErr := net.SplitHostPort(b)
	return err == nil && otherErr == nil && (one == other || one == "0")
}

// publicPorts counts those that another program has. A running server opens them as
// mappings ask for them.
func (e *exam) publicPorts(ports domain.PortRange, listen func(int) (net.Listener, error)) {
	check := fmt.Sprintf("--public-ports %d-%d", ports.First, ports.Last)
	var taken []string
	for port := ports.First; port <= ports.Last; port++ {
		l, err := listen(port)
		if err != nil {
			taken = append(taken, strconv.Itoa(port))
			continue
		}
		_ = l.Close()
	}
	all := ports.Last - ports.First + 1
	switch {
	case len(taken) == 0:
		e.report.Well(check, "%d ports are free", all)
	case e.running != nil && len(taken) < all:
		e.report.Well(check, "%d of %d ports are in use; they may be of mappings", len(taken), all)
	default:
		more := ""
		if len(taken) > 5 {
			more = " and others"
		}
		text := fmt.Sprintf("%d of %d ports cannot be opened: %s%s", len(taken), all, strings.Join(taken[:min(5, len(taken))], ", "), more)
		const do = "end the programs that have them, or give another range"
		if len(taken) == all {
			e.report.Fail(check, do, "%s", text)
		} else {
			e.report.Note(check, do+"; mappings get the others", "%s", text)
		}
	}
}
