package agent

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/tunnox-net/tunnox/proxyheader"
	"github.com/tunnox-net/tunnox/wire"
	"github.com/tunnox-net/tunnox/wire/wirepb"
)

// carriesProxyProtocol says in Hello that this agent tells services who the visitor is,
// where the mapping asks for it.
const carriesProxyProtocol = "proxy-protocol"

// heraldTime bounds the first write to a service, for which its system has room.
const heraldTime = 5 * time.Second

// herald tells the service who the visitor is, before the first byte of that, if the
// mapping asks for it.
func herald(conn net.Conn, open *wirepb.Open) error {
	if open.GetOptions() == "" {
		return nil
	}
	var o struct {
		ProxyProtocol string `json:"proxy_protocol"`
	}
	err := json.Unmarshal([]byte(open.GetOptions()), &o)
	if err == nil && (o.ProxyProtocol == "" || o.ProxyProtocol == "none") {
		return nil
	}
	var text []byte
	if err == nil {
		text, err = headerOf(open).Bytes(o.ProxyProtocol)
	}
	if err == nil {
		_ = conn.SetWriteDeadline(time.Now().Add(heraldTime))
		_, err = conn.Write(text)
		_ = conn.SetWriteDeadline(time.Time{})
	}
	if err != nil {
		_ = conn.Close()
		return fmt.Errorf("tell the service the visitor's address: %w: %w", err, wire.DialUnreachable)
	}
	return nil
}

// headerOf gives what is known of the visitor. An address that cannot be read is not
// known: it comes from another agent, perhaps.
func headerOf(open *wirepb.Open) proxyheader.Header {
	from, err := netip.ParseAddrPort(open.GetPeer())
	if err != nil {
		return proxyheader.Header{}
	}
	from = netip.AddrPortFrom(from.Addr().Unmap().WithZone(""), from.Port())
	to, err := netip.ParseAddrPort(open.GetLocal())
	if err != nil { // an older forwarder or agent does not say it
		to = netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
		if from.Addr().Is6() {
			to = netip.AddrPortFrom(netip.IPv6Unspecified(), 0)
		}
	}
	return proxyheader.Header{From: from, To: netip.AddrPortFrom(to.Addr().Unmap().WithZone(""), to.Port())}
}

// localText is where a connection came in.
func localText(conn net.Conn) string {
	if at := conn.LocalAddr(); at != nil {
		return at.String()
	}
	return ""
}
