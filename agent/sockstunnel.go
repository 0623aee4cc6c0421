package agent

import (
	"context"
	"strconv"

	"github.com/tunnox-net/tunnox/wire/wirepb"
)

const (
	socksProtocol = "socks5"
	// socksPort is where programs expect a SOCKS proxy (RFC 1928, section 3).
	socksPort = 1080
)

// choosePort gives a SOCKS tunnel a port where nobody has named one: the usual one, or
// any that is free.
func (t *tunnel) choosePort() error {
	host, port := t.listener()
	if t.wish.Protocol != socksProtocol || port != 0 {
		return nil
	}
	port = socksPort
	if canListen(socksProtocol, host, port) != nil {
		var err error
		if port, err = anyFree(host); err != nil {
			return err
		}
	}
	t.listenOn(port)
	return nil
}

// listenOn has the tunnel listen on a port. Others look at the parts for the address.
func (t *tunnel) listenOn(port int) {
	t.a.tunnels.mu.Lock()
	defer t.a.tunnels.mu.Unlock()
	t.wish.Parts["local_port"] = float64(port) // as JSON has it
}

// mayHaveAnotherPassword tells whether a mapping that an earlier program left behind can
// have another password than this one asks for. The server shows none.
func (t *tunnel) mayHaveAnotherPassword() bool {
	return t.wish.Resume == nil && (userOf(t.wish.Parts["socks"]) != "" || t.hasVisitorPasswords())
}

// replace ends a mapping that is to be made anew with another password, and frees its
// port, or its public address, which is kept.
func (t *tunnel) replace(ctx context.Context, left *wirepb.Mapping) error {
	id := left.GetMappingId()
	t.letGo()
	if err := t.a.tunnels.remove(ctx, id); err != nil {
		return err
	}
	if left.GetSourceClientId() == 0 {
		t.keepAddress(left)
		return nil
	}
	if _, port := t.listener(); port == 0 {
		t.listenOn(int(left.GetLocalPort()))
	}
	for {
		here, noted := t.a.listeners.has(id)
		if !here {
			return nil
		}
		select {
		case <-noted:
		case <-ctx.Done():
			return &refusedHere{"no_answer", "The port " + strconv.Itoa(int(left.GetLocalPort())) + " of an earlier tunnel is not free yet: try again."}
		}
	}
}

// userOf gives the user name of what stands under socks among the parts of a mapping.
func userOf(socks any) string {
	access, _ := socks.(map[string]any)
	name, _ := access["username"].(string)
	return name
}
