package main

import (
	"fmt"
	"net"
	"strings"
	"testing"
)

// Visitors over HTTP/3 and agents over QUIC cannot share a UDP port, which is told before
// anything starts. A port that another program has is passed over, unless somebody chose it.
func TestPortOfHTTP3(t *testing.T) {
	other, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	port := other.LocalAddr().(*net.UDPAddr).Port
	own := &listeners{quic: other, https: boundTo{addr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}}}
	for _, address := range []string{"", fmt.Sprintf(":%d", port), fmt.Sprintf("0.0.0.0:%d", port)} {
		if _, err := own.listenHTTP3(binding{https: "127.0.0.1:0", http3: address}); err == nil || !strings.Contains(err.Error(), "--http3 off") {
			t.Errorf("with --http3 %q and the port of --quic: %v", address, err)
		}
	}
	if got := (&config{Heralds: "10.0.0.9"}).http3(); got != quicOff {
		t.Errorf("behind a proxy that announces visitors it is %q, want off", got)
	}
	own.quic = nil
	if socket, err := own.listenHTTP3(binding{https: "127.0.0.1:0"}); socket != nil || err != nil || own.http3Fault == nil {
		t.Errorf("a port that another program has gives %v, %v", socket, err)
	}
	if _, err := own.listenHTTP3(binding{https: "127.0.0.1:0", http3: other.LocalAddr().String()}); err == nil {
		t.Error("a port that was chosen and that another program has is no error")
	}
	if socket, err := own.listenHTTP3(binding{https: "127.0.0.1:0", http3: quicOff}); socket != nil || err != nil {
		t.Errorf("off gives %v, %v", socket, err)
	}
}
