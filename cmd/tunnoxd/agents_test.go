package main

import (
	"net"
	"testing"
)

// TestAPortForTCPAndUDP: where the system chooses the port of --listen and somebody has it
// for UDP, it chooses another one; a port that was asked for is not exchanged.
func TestAPortForTCPAndUDP(t *testing.T) {
	taken, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	agents, err := net.Listen("tcp4", taken.LocalAddr().String())
	for tries := 0; err != nil && tries < pairTries; tries++ { // somebody has it for TCP
		if taken, err = net.ListenPacket("udp4", "127.0.0.1:0"); err == nil {
			agents, err = net.Listen("tcp4", taken.LocalAddr().String())
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	asked := &listeners{agents: agents}
	if socket, err := asked.listenQUIC(binding{agents: agents.Addr().String()}); err == nil {
		_ = socket.Close()
		t.Error("two sockets have one port")
	}
	chosen := &listeners{agents: agents}
	socket, err := chosen.listenQUIC(binding{agents: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = socket.Close(); _ = chosen.agents.Close() }()
	if got := socket.LocalAddr().(*net.UDPAddr).Port; got != chosen.agents.Addr().(*net.TCPAddr).Port || got == taken.LocalAddr().(*net.UDPAddr).Port {
		t.Errorf("UDP has the port %d, TCP %v", got, chosen.agents.Addr())
	}
}
