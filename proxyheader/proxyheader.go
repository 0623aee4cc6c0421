// Package proxyheader carries a visitor's address past a proxy: it reads and writes the
// header of the PROXY protocol, versions 1 and 2
// (https://www.haproxy.org/download/3.1/doc/proxy-protocol.txt).
//
// Its limit: the header of a TCP connection, which is the first that its sender writes. It
// reads no byte behind the header, so that the socket can be used as any other afterwards.
package proxyheader

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"

	"github.com/pires/go-proxyproto"
)

// Versions, as the option proxy_protocol names them.
const (
	V1 = "v1"
	V2 = "v2"
)

// Header is what a proxy says of a connection. Both addresses are invalid when it says
// nothing, for example of a connection of its own.
type Header struct {
	From netip.AddrPort // the visitor
	To   netip.AddrPort // what the visitor connected to
}

// Bounds of a header. Version 1 is one line; version 2 says its length, and what is
// more than an address is for others.
const (
	maxLine    = 107 // with CR LF
	shortest   = 15  // "PROXY UNKNOWN" with CR LF; one less than version 2 begins with
	maxVersion = 4096
)

var signature = []byte("\r\n\r\n\x00\r\nQUIT\n") // of version 2

// ErrNone: the connection does not begin with a header.
var ErrNone = errors.New("proxyheader: the connection does not begin with a header of the PROXY protocol")

// Read reads the header at the beginning of a connection, and nothing behind it. The
// caller bounds the time, with a deadline.
func Read(r io.Reader) (Header, error) {
	text := make([]byte, shortest, maxLine)
	if _, err := io.ReadFull(r, text); err != nil {
		return Header{}, fmt.Errorf("proxyheader: %w", err)
	}
	var err error
	switch {
	case bytes.HasPrefix(text, signature):
		text, err = readVersion2(r, text)
	case bytes.HasPrefix(text, []byte("PROXY ")):
		text, err = readLine(r, text)
	default:
		err = ErrNone
	}
	if err != nil {
		return Header{}, err
	}
	parsed, err := proxyproto.Read(bufio.NewReaderSize(bytes.NewReader(text), len(text)))
	if err != nil {
		return Header{}, fmt.Errorf("proxyheader: %w", err)
	}
	from, to, ok := parsed.TCPAddrs()
	if parsed.Command.IsLocal() || !ok {
		return Header{}, nil
	}
	return Header{addrPort(from), addrPort(to)}, nil
}

// readLine reads on to the end of the line, byte by byte: what is behind it belongs to
// the visitor.
func readLine(r io.Reader, text []byte) ([]byte, error) {
	for text[len(text)-1] != '\n' {
		if len(text) == maxLine {
			return nil, errors.New("proxyheader: the line does not end")
		}
		text = text[:len(text)+1]
		if _, err := io.ReadFull(r, text[len(text)-1:]); err != nil {
			return nil, fmt.Errorf("proxyheader: %w", err)
		}
	}
	if bytes.IndexByte(text, '\n') != len(text)-1 {
		return nil, errors.New("proxyheader: the line ends too early")
	}
	return text, nil
}

func readVersion2(r io.Reader, text []byte) ([]byte, error) {
	text = text[:shortest+1]
	if _, err := io.ReadFull(r, text[shortest:]); err != nil {
		return nil, fmt.Errorf("proxyheader: %w", err)
	}
	length := int(binary.BigEndian.Uint16(text[14:16]))
	if length > maxVersion {
		return nil, fmt.Errorf("proxyheader: the header has %d bytes, and %d are the most that are read", length, maxVersion)
	}
	text = append(text, make([]byte, length)...)
	if _, err := io.ReadFull(r, text[shortest+1:]); err != nil {
		return nil, fmt.Errorf("proxyheader: %w", err)
	}
	return text, nil
}

func addrPort(a *net.TCPAddr) netip.AddrPort {
	at := a.AddrPort()
	return netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
}

// Bytes gives the header in a version. A header without addresses says that it knows
// none.
func (h Header) Bytes(version string) ([]byte, error) {
	from, to := h.From, h.To
	known := from.IsValid() && to.IsValid()
	if known && from.Addr().Unmap().Is4() != to.Addr().Unmap().Is4() { // the header has one family
		from, to = as6(from), as6(to)
	}
	header := &proxyproto.Header{Version: 1, Command: proxyproto.PROXY, TransportProtocol: proxyproto.TCPv4,
		SourceAddr: tcpAddr(from), DestinationAddr: tcpAddr(to)}
	switch {
	case !known:
		header = &proxyproto.Header{Version: 1, Command: proxyproto.LOCAL, TransportProtocol: proxyproto.UNSPEC}
	case from.Addr().Is6() && !from.Addr().Is4In6() || to.Addr().Is6() && !to.Addr().Is4In6():
		header.TransportProtocol = proxyproto.TCPv6
	}
	switch version {
	case V1:
	case V2:
		header.Version = 2
	default:
		return nil, fmt.Errorf("proxyheader: there is no version %q", version)
	}
	text, err := header.Format()
	if err != nil {
		return nil, fmt.Errorf("proxyheader: %w", err)
	}
	return text, nil
}

func as6(at netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom16(at.Addr().As16()), at.Port())
}

func tcpAddr(at netip.AddrPort) *net.TCPAddr {
	if !at.IsValid() {
		return nil
	}
	ip := at.Addr().As16()
	return &net.TCPAddr{IP: ip[:], Port: int(at.Port())}
}
