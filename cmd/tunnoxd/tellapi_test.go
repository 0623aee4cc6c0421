package main

import (
	"net"
	"testing"
)

// Machines that join are told where the API is when that is certain, and else nothing.
func TestAgentsAreToldTheAPITheyReach(t *testing.T) {
	at := func(address string) net.Listener {
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		return l
	}
	loop, every := at("127.0.0.1:0"), at(":0")
	_, port, _ := net.SplitHostPort(every.Addr().String())
	here, there := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 5}, &net.TCPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 5}
	for _, tt := range []struct {
		advertised string
		api        net.Listener
		from       net.Addr
		want       string
	}{
		{"", loop, here, "http://" + loop.Addr().String()},
		{"", loop, there, ""},
		{"", every, here, "http://127.0.0.1:" + port},
		{"", every, there, ""},
		{"", nil, here, ""},
		{"https://tunnox.example.org", loop, there, "https://tunnox.example.org"},
		{"https://tunnox.example.org", nil, here, "https://tunnox.example.org"},
	} {
		p := &process{cfg: &config{AdvertiseAPI: tt.advertised}, sockets: &listeners{api: tt.api}}
		if got := p.apiFor(tt.from); got != tt.want {
			t.Errorf("%q, API at %v, agent from %v: %q, want %q", tt.advertised, tt.api, tt.from, got, tt.want)
		}
	}
	for text, good := range map[string]bool{"https://a.example.org": true, "http://10.0.0.1:9000": true, "https://a.example.org/tunnox": true,
		"a.example.org": false, "ftp://a": false, "https://u:p@a": false, "https://a/": false, "https://a?b": false} {
		if (checkAPIURL(text) == nil) != good {
			t.Errorf("%q: good %v, want %v", text, !good, good)
		}
	}
}
