package forwarder

import (
	"errors"
	"net"

	"github.com/tunnox-net/tunnox/netaddr"
	"github.com/tunnox-net/tunnox/wire"
)

// A log cannot be erased with a user. So it says from which network somebody comes, and
// no address; and of what an agent could not do it says the code. The words for it go to
// who asked, and have names and addresses of services.

// network is the log's form of an address.
func network(a net.Addr) string {
	if a == nil {
		return ""
	}
	return netaddr.Network(a.String())
}

// said is the log's form of an error of a link or a stream.
func said(err error) string {
	if err == nil {
		return ""
	}
	if refusal, ok := errors.AsType[*wire.Refusal](err); ok {
		return string(refusal.Code)
	}
	return netaddr.Masked(err.Error())
}
