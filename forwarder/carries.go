package forwarder

import (
	"fmt"
	"slices"
	"strings"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/wire"
	"github.com/tunnox-net/tunnox/wire/wirepb"
)

// carries are the protocols that an agent carries, as its Hello says.
type carries []string

// carriesProxyProtocol says that an agent tells services who the visitor is.
const carriesProxyProtocol = "proxy-protocol"

// carriesSeal says that an agent encrypts from end to end, in version 1 of that.
const carriesSeal = "seal-1"

// Bounds of this list, so that no agent can store long texts here and in the directory.
const (
	maxCarried       = 16
	maxCarriedLength = 16
)

// carriesOf gives the protocols that the agent of a Hello carries. An agent that does
// not name any is older than all protocols but tcp.
func carriesOf(hello *wirepb.Hello) carries {
	if len(hello.GetProtocols()) == 0 {
		return carries{string(domain.ProtocolTCP)}
	}
	return slices.Compact(slices.Sorted(slices.Values(hello.GetProtocols())))
}

// validProtocols reports whether names of protocols can be stored and shown.
func validProtocols(names []string) bool {
	lower := func(r rune) bool { return r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' }
	bad := func(name string) bool {
		return name == "" || len(name) > maxCarriedLength || strings.ContainsFunc(name, func(r rune) bool { return !lower(r) })
	}
	return len(names) <= maxCarried && !slices.ContainsFunc(names, bad)
}

// has reports whether the agent carries a protocol.
func (c carries) has(protocol string) bool { return slices.Contains(c, protocol) }

// String is the form for the directory.
func (c carries) String() string { return strings.Join(c, ",") }

// lacks gives the refusal of a stream that the session's agent would not understand, or
// nil. An agent that is older than the field Open.protocol takes every stream for tcp.
func (s *session) lacks(protocol string) error {
	if s.carries.has(protocol) {
		return nil
	}
	return &wire.Refusal{Code: wire.ProtocolUnavailable, Message: fmt.Sprintf(
		"the agent of client %d, version %s, does not carry %s: update it", s.client, s.versionText(), protocol)}
}

func (s *session) versionText() string {
	if s.version == "" {
		return "unknown"
	}
	return s.version
}

// unsealed gives the refusal of a stream whose mapping demands encryption from end to
// end, if an agent does not do its part; else nil.
func (f *forward) unsealed(open *wirepb.Open, target *session) error {
	switch {
	case !f.sealed:
		return nil
	case len(open.GetSeal()) == 0:
		return wire.EncryptionRequired
	case target != nil && !target.carries.has(carriesSeal):
		return &wire.Refusal{Code: wire.EncryptionUnavailable, Message: fmt.Sprintf(
			"the agent of client %d, version %s, cannot encrypt from end to end: update it, or set the mapping's encryption to transport", target.client, target.versionText())}
	}
	return nil
}
