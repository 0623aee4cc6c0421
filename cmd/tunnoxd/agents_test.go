package main

import (
	"net"
	"strings"
	"syscall"
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

// TestAnAddressInUseSaysWhatToDo: the sentence names the flag to change.
func TestAnAddressInUseSaysWhatToDo(t *testing.T) {
	taken, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	_, err = openListeners(binding{api: taken.Addr().String()})
	if err == nil || !strings.Contains(err.Error(), "another program listens there") || !strings.Contains(err.Error(), "choose another address with --api") {
		t.Errorf("an address in use: %v", err)
	}
	if err := notListening("http", syscall.EACCES); !strings.Contains(err.Error(), "ports below 1024 are for root") {
		t.Errorf("a port below 1024: %v", err)
	}
}
