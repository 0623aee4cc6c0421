package main

import (
	"log/slog"
	"net"

	"github.com/tunnox-net/tunnox/transport"
)

// listenAgents makes the listeners that agents begin sessions at.
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
	return all, nil
}
