package agent

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"github.com/tunnox-net/tunnox/wire"
	"github.com/tunnox-net/tunnox/wire/wirepb"
)

// canListen reports whether a listener could be opened at this machine.
func canListen(protocol, host string, port int) error {
	addr, err := netip.ParseAddr(host)
	if err != nil || port < 1 || port > 65535 {
		return &refusedHere{"invalid", fmt.Sprintf("%s is not an address to listen on: give an IP address and a port from 1 to 65535.", net.JoinHostPort(host, strconv.Itoa(port)))}
	}
	opened, failure := listen(&wirepb.Listener{Protocol: protocol, Host: addr.Unmap().String(), Port: uint32(port)})
	if failure != nil {
		return listenRefusal(net.JoinHostPort(host, strconv.Itoa(port)), failure)
	}
	return opened.Close()
}

// listenRefusal gives the reason why a listener cannot be opened, and what the user can
// do.
func listenRefusal(address string, failure *wirepb.Failure) error {
	switch wire.Code(failure.GetCode()) {
	case wire.AddressInUse:
		return &refusedHere{failure.GetCode(), fmt.Sprintf("Another program listens on %s on this machine: choose another port, or end that program.", address)}
	case wire.AddressDenied:
		return &refusedHere{failure.GetCode(), fmt.Sprintf("This user may not listen on %s: ports below 1024 are for root, so choose another one.", address)}
	}
	return &refusedHere{failure.GetCode(), fmt.Sprintf("This agent cannot listen on %s: %s.", address, failure.GetMessage())}
}

// anyFree gives a port that was free a moment ago.
func anyFree(host string) (int, error) {
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return 0, &refusedHere{string(wire.AddressUnavailable), fmt.Sprintf("This agent cannot listen on %s: %v.", host, err)}
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}
