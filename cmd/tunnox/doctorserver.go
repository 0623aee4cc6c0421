package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/tunnox-net/tunnox/checkup"
	"github.com/tunnox-net/tunnox/reach"
	"github.com/tunnox-net/tunnox/transport"
	"github.com/tunnox-net/tunnox/transport/quic"
)

// server checks how one server is reached, and tells whether a session is possible.
func (d *doctor) server(ctx context.Context, address string, verify transport.DialConfig) bool {
	parsed, err := transport.ParseAddress(address)
	if err != nil {
		d.report.Fail("address "+address, "give the server as host:port", "%v", err)
		return false
	}
	target := parsed.HostPort()
	proxies, err := reach.ProxiesFrom(d.variable, new(reach.Direct).Dial, verify.Front)
	if err != nil {
		d.report.Fail("proxy", "correct the variable, or unset it if no proxy is needed", "%v", err)
		return false
	}
	proxied, ok := d.proxy(target, proxies)
	if !ok || !proxied && !d.resolves(ctx, target) {
		return false
	}
	connected := d.connects(ctx, target, proxies, proxied)
	line := len(d.report.Findings) - 1
	if !connected && proxied {
		return false // QUIC does not go through a proxy, so nothing is left
	}
	order := transports
	if strings.Contains(address, "://") {
		order = []string{parsed.Scheme}
	}
	if !connected { // nothing of TCP can work
		order = slices.DeleteFunc(slices.Clone(order), func(scheme string) bool { return scheme != quic.Scheme })
	}
	reached := d.transports(ctx, address, order, proxied, verify)
	if reached && !connected {
		d.report.Findings[line].State = checkup.Note
	}
	if reached {
		d.clock(ctx, target, proxies, verify)
		d.packets(ctx, target)
	}
	return reached
}

// proxy says which proxy is used. Names and passwords of proxies are not shown.
func (d *doctor) proxy(target string, proxies *reach.Proxies) (used, ok bool) {
	through, err := proxies.For(target)
	switch {
	case err != nil:
		d.report.Fail("proxy", "correct HTTPS_PROXY, ALL_PROXY and NO_PROXY", "for %s: %v", target, err)
		return false, false
	case through == nil:
		d.report.Well("proxy", "none for %s", target)
		return false, true
	}
	with := ""
	if through.User != nil {
		with = ", with a name and password"
	}
	d.report.Well("proxy", "%s://%s for %s%s", through.Scheme, through.Host, target, with)
	return true, true
}

func (d *doctor) resolves(ctx context.Context, target string) bool {
	host, _, err := net.SplitHostPort(target)
	if err != nil || net.ParseIP(host) != nil {
		return err == nil
	}
	ctx, cancel := context.WithTimeout(ctx, d.limit)
	defer cancel()
	begun := time.Now()
	all, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		d.report.Fail("resolves", "check the spelling of the name, and the DNS of this network: another name must resolve here too", "%s: %v", host, err)
		return false
	}
	texts := make([]string, len(all))
	for i, a := range all {
		texts[i] = a.Unmap().String()
	}
	d.report.Well("resolves", "%s is %s, in %s", host, strings.Join(texts, ", "), rounded(time.Since(begun)))
	return true
}

// connects opens a TCP connection, through the proxy if there is one.
func (d *doctor) connects(ctx context.Context, target string, proxies *reach.Proxies, proxied bool) bool {
	ctx, cancel := context.WithTimeout(ctx, d.limit)
	defer cancel()
	begun := time.Now()
	conn, err := proxies.Dial(ctx, "tcp", target)
	if err == nil {
		to := conn.RemoteAddr().String()
		_ = conn.Close()
		if proxied {
			to += ", and from there to " + target
		}
		d.report.Well("connects", "TCP to %s, in %s", to, rounded(time.Since(begun)))
		return true
	}
	do := "see whether tunnoxd runs there, listens on this port, and whether a firewall lets it through"
	refusal, refused := errors.AsType[*reach.RefusedError](err)
	switch {
	case refused && refusal.Code == http.StatusProxyAuthRequired:
		do = "the proxy wants a name and password that it accepts: HTTPS_PROXY=http://NAME:PASSWORD@HOST:PORT"
	case refused:
		do = "ask who runs the proxy to allow CONNECT to " + target
	case proxied:
		do = "see whether the proxy of HTTPS_PROXY or ALL_PROXY runs; NO_PROXY lists servers that need no proxy"
	case errors.Is(err, syscall.ECONNREFUSED):
		do = "nothing listens there: start tunnoxd, or correct the port"
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		do = "this machine has no way there: check its network, gateway and VPN"
	case timedOut(err):
		do = "packets to this port are dropped: let TCP to " + target + " through the firewalls on the way, or have the server listen on 443"
	}
	d.report.Fail("connects", do, "TCP to %s: %v", target, err)
	return false
}

// transports tries each transport by itself, as the agent would.
func (d *doctor) transports(ctx context.Context, address string, order []string, proxied bool, verify transport.DialConfig) bool {
	from, reached, pinned := len(d.report.Findings), false, false
	var strange error
	for _, scheme := range order {
		if scheme == quic.Scheme && proxied {
			d.report.Well(scheme, "not used: a proxy carries TCP only")
			continue
		}
		took, err := d.roundTrip(ctx, address, scheme, verify)
		if err == nil {
			reached, pinned = true, true
			ms := float64(took.Microseconds()) / 1000
			d.report.Well(scheme, "works, round trip %s", rounded(took))
			d.report.Last().RTT = &ms
			continue
		}
		if isStrange(err) && strange == nil {
			strange = err
		}
		d.report.Fail(scheme, adviceFor(scheme, err), "%v", err)
	}
	for i := from; reached && i < len(d.report.Findings); i++ {
		if f := &d.report.Findings[i]; f.State == checkup.Failed && f.Do == seePin {
			f.Do = "somebody on the way breaks TLS open, as proxies of companies do; the agent uses a transport that they cannot read"
		}
	}
	if reached {
		d.report.Soften(from) // another transport stands in for those that do not work
	}
	switch {
	case strange != nil && !reached:
		d.report.Fail("pin", "get the pin from who runs the server: it stands in the join line, and tunnox join with a new invitation sets it\ndo not go on if nobody has changed the server: somebody may be in between", "%v", strange)
	case pinned && len(verify.Pins) > 0:
		d.report.Well("pin", "the server has the key of the pin")
	case pinned:
		d.report.Well("pin", "none; the server's certificate is verified by authorities")
	}
	return reached
}

// roundTrip makes a session over one transport and measures it.
func (d *doctor) roundTrip(ctx context.Context, address, scheme string, verify transport.DialConfig) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, d.limit)
	defer cancel()
	name := scheme
	if scheme == transport.SchemeWS {
		name = reach.Auto // an address may ask for it; --transport does not
	}
	way, err := dialer(d.surroundings, name, verify)
	if err != nil {
		return 0, err
	}
	session, err := way.Dial(ctx, address)
	if err != nil {
		return 0, err
	}
	defer session.Close()
	return session.Ping(ctx)
}

// isStrange tells that a server is not the one expected.
func isStrange(err error) bool {
	_, certificate := errors.AsType[*tls.CertificateVerificationError](err)
	_, name := errors.AsType[x509.HostnameError](err)
	_, authority := errors.AsType[x509.UnknownAuthorityError](err)
	return certificate || name || authority || errors.Is(err, transport.ErrPin)
}

const seePin = "see the line pin"

// adviceFor says what to do about a transport that gives no session.
func adviceFor(scheme string, err error) string {
	upgrade, answered := errors.AsType[*transport.UpgradeError](err)
	header, other := errors.AsType[tls.RecordHeaderError](err)
	switch {
	case isStrange(err):
		return seePin
	case scheme == quic.Scheme && timedOut(err):
		return "UDP to this port does not come through: let it through the firewalls, or see whether the server has --quic off; the agent uses another transport meanwhile"
	case scheme == quic.Scheme:
		return "see whether the server has --quic off, and whether UDP comes through; the agent uses another transport meanwhile"
	case answered:
		return fmt.Sprintf("what answers is no Tunnox server (%d): if a reverse proxy stands there, have it pass /tunnox on", upgrade.Code)
	case other && string(header.RecordHeader[:]) == "HTTP/":
		return "this is the port of a web server, perhaps of the API: give the port for agents, which stands in the server's join line"
	case timedOut(err):
		return "the connection is there and no answer comes: a firewall or proxy on the way may hold this transport back"
	}
	return "see whether this is the port for agents; a proxy that breaks TLS lets wss through only"
}

func timedOut(err error) bool {
	timeout, ok := errors.AsType[net.Error](err)
	return errors.Is(err, context.DeadlineExceeded) || ok && timeout.Timeout()
}

// Differences of clocks that are told. The server's date has whole seconds.
const (
	clockNoted  = 5 * time.Second
	clockFailed = 5 * time.Minute
)

// clock compares the server's date with the clock here. Old servers tell none.
func (d *doctor) clock(ctx context.Context, target string, proxies *reach.Proxies, verify transport.DialConfig) {
	ctx, cancel := context.WithTimeout(ctx, d.limit)
	defer cancel()
	config, err := verify.ClientTLS(target)
	if err != nil {
		return
	}
	config.NextProtos = []string{"http/1.1"}
	client := &http.Client{Transport: &http.Transport{DialContext: proxies.Dial, TLSClientConfig: config}}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+target+"/", http.NoBody)
	if err != nil {
		return
	}
	begun := time.Now()
	resp, err := client.Do(req)
	if err != nil {
		d.report.Well("clock", "not compared: nobody at %s tells the time", target)
		return
	}
	_ = resp.Body.Close()
	then, err := http.ParseTime(resp.Header.Get("Date"))
	if err != nil {
		d.report.Well("clock", "not compared: the server does not tell its time; it is an older one")
		return
	}
	now := begun.Add(time.Since(begun) / 2)
	d.compared(now.Sub(then.Add(500 * time.Millisecond)))
}

// compared tells how far the clock here is ahead of the server's.
func (d *doctor) compared(ahead time.Duration) {
	text := "ahead of the server's"
	if ahead < 0 {
		ahead, text = -ahead, "behind the server's"
	}
	const do = "set the clock: switch time synchronisation on, here or at the server"
	switch {
	case ahead > clockFailed:
		d.report.Fail("clock", do+"; certificates and codes seem expired otherwise", "the clock here is %v %s", ahead.Round(time.Second), text)
	case ahead > clockNoted:
		d.report.Note("clock", do, "the clock here is %v %s", ahead.Round(time.Second), text)
	default:
		d.report.Well("clock", "differs from the server's by less than %v", max(ahead.Truncate(time.Second)+time.Second, time.Second))
	}
}

// smallestMTU is the smallest that QUIC works with: its packets, and the headers of UDP
// and IPv6.
const smallestMTU = 1280

// packets tells how large packets to the server may be, as far as this machine knows.
func (d *doctor) packets(ctx context.Context, target string) {
	mtu, from, err := pathMTU(ctx, target)
	switch {
	case err != nil || mtu == 0:
		d.report.Well("mtu", "not known here")
	case mtu < smallestMTU:
		d.report.Note("mtu", "raise the MTU of the VPN or tunnel on the way to 1280 or more; QUIC does not work below", "%d bytes to %s, says %s", mtu, target, from)
	default:
		d.report.Well("mtu", "%d bytes to %s, says %s", mtu, target, from)
	}
}

// api asks whether the REST API is reached, if its address is known. Without it, tunnels
// work all the same.
func (d *doctor) api(ctx context.Context, k known) {
	base := cmp.Or(d.variable("TUNNOX_API"), k.api())
	if base == "" {
		return
	}
	base, err := apiBase(base)
	if err != nil {
		d.report.Fail("api", "correct TUNNOX_API", "%v", err)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, d.limit)
	defer cancel()
	c := &restClient{base: base, timeout: d.limit, http: &http.Client{}}
	if base == k.api() && k.settings.CA != "" {
		if c.http, err = vouched(k.settings.CA); err != nil {
			d.report.Fail("api", "give the certificates again: tunnox use NAME --api URL --api-ca FILE", "%v", err)
			return
		}
	}
	defer c.http.CloseIdleConnections()
	begun := time.Now()
	_, resp, err := c.send(ctx, http.MethodGet, "/health", nil)
	switch {
	case err != nil:
		first, _, _ := strings.Cut(err.Error(), "\n")
		d.report.Note("api", "tunnels work without it; for tunnox login and the like give its address: tunnox use NAME --api URL", "%s", first)
	case resp.StatusCode != http.StatusOK:
		d.report.Note("api", "see whether this is the address of the API: tunnox use NAME --api URL sets it", "%s answers %s", base, resp.Status)
	default:
		d.report.Well("api", "%s answers, in %s", base, rounded(time.Since(begun)))
	}
}

// rounded gives a time as people read it.
func rounded(took time.Duration) string {
	if took < 10*time.Millisecond {
		return took.Round(100 * time.Microsecond).String()
	}
	return took.Round(time.Millisecond).String()
}
