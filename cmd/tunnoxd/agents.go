package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"syscall"

	"github.com/tunnox-net/tunnox/transport"
	"github.com/tunnox-net/tunnox/transport/quic"
)

// quicOff is the value of --quic that turns QUIC off.
const quicOff = "off"

// listenQUIC opens the socket for QUIC, if QUIC is not off. Without an address the
// socket has the address of --listen, which is open already.
func (ls *listeners) listenQUIC(on binding) (net.PacketConn, error) {
	address := on.quic
	if on.agents == "" || address == quicOff {
		return nil, nil //nolint:nilnil // a role or a setting without QUIC
	}
	if address != "" {
		return listenUDP(address)
	}
	host, wanted, err := net.SplitHostPort(on.agents)
	if err != nil {
		return nil, fmt.Errorf("--listen %s: %w", on.agents, err)
	}
	for tries := 1; ; tries++ {
		_, port, err := net.SplitHostPort(ls.agents.Addr().String())
		if err != nil {
			return nil, fmt.Errorf("--listen %s: %w", on.agents, err)
		}
		socket, err := listenUDP(net.JoinHostPort(host, port))
		if wanted != "0" || tries == pairTries || !errors.Is(err, syscall.EADDRINUSE) {
			return socket, err
		}
		// The system has chosen the port for TCP, and somebody has it for UDP: it chooses
		// another one, while the first is still open.
		another, err := listenTCP(on.agents)
		if err != nil {
			return nil, fmt.Errorf("--listen %s: %w", on.agents, err)
		}
		_ = ls.agents.Close()
		ls.agents = another
	}
}

// pairTries is how often a port that is free for TCP and for UDP is looked for.
const pairTries = 20

func listenUDP(address string) (net.PacketConn, error) {
	network := "udp"
	if ipv4Only(address) {
		network = "udp4"
	}
	socket, err := new(net.ListenConfig).ListenPacket(context.Background(), network, address)
	if err != nil {
		return nil, fmt.Errorf("--quic %s, which may be off: %w", address, err)
	}
	return socket, nil
}

// listenAgents makes the listeners for sessions of agents.
func (p *process) listenAgents(config transport.ListenConfig, log *slog.Logger) (all []transport.Listener, err error) {
	for _, socket := range []net.Listener{p.sockets.agents, p.sockets.ws} {
		if socket == nil {
			continue
		}
		l, err := transport.ListenTLS(socket, config, log)
		if err != nil {
			return nil, err
		}
		all = append(all, l)
	}
	if p.sockets.quic != nil {
		if err := quietQUIC(); err != nil {
			return nil, err
		}
		l, err := quic.Listen(p.sockets.quic, config, log)
		if err != nil {
			return nil, err
		}
		all = append(all, l)
	}
	return all, nil
}
