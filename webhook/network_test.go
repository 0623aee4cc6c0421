package webhook

import (
	"net/netip"
	"testing"
)

func TestOnlyTheInternetIsReached(t *testing.T) {
	for text, want := range map[string]bool{
		"93.184.215.14": true, "8.8.8.8": true, "2606:2800:21f:cb07:6820:80da:af6b:8b2c": true,
		"127.0.0.1": false, "127.9.9.9": false, "0.0.0.0": false, "0.1.2.3": false, "10.0.0.1": false, "172.16.0.1": false, "172.31.255.255": false,
		"172.32.0.1": true, "192.168.1.1": false, "169.254.169.254": false, "100.64.0.1": false, "100.100.100.200": false, "100.128.0.1": true,
		"224.0.0.1": false, "239.1.1.1": false, "255.255.255.255": false, "240.0.0.1": false, "198.18.0.1": false, "192.0.0.192": false,
		"192.0.2.1": false, "168.63.129.16": false, "192.88.99.1": false,
		"::1": false, "::": false, "fe80::1": false, "fe80::1%eth0": false, "fc00::1": false, "fd00:ec2::254": false, "ff02::1": false,
		"::ffff:127.0.0.1": false, "::ffff:169.254.169.254": false, "::ffff:8.8.8.8": true, "::127.0.0.1": false,
		"64:ff9b::7f00:1": false, "64:ff9b:1::1": false, "2002:7f00:1::": false, "2001::1": false, "2001:db8::1": false, "3fff::1": false,
		"fec0::1": false, "100::1": false,
	} {
		if got := (Networks{}).Allows(netip.MustParseAddr(text)); got != want {
			t.Errorf("%s: %v, want %v", text, got, want)
		}
	}
	if (Networks{}).Allows(netip.Addr{}) {
		t.Error("no address is allowed")
	}
}

func TestNetworksThatAreNamedAreReached(t *testing.T) {
	n, err := ParseNetworks("10.1.0.0/16, ::1/128,127.0.0.1/32")
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]bool{"10.1.2.3": true, "10.2.0.1": false, "::1": true, "127.0.0.1": true, "127.0.0.2": false, "::ffff:10.1.2.3": true} {
		if got := n.Allows(netip.MustParseAddr(text)); got != want {
			t.Errorf("%s: %v, want %v", text, got, want)
		}
	}
	for _, wrong := range []string{"10.1.0.0", "x", "10.0.0.0/33", "::ffff:10.0.0.0/104"} {
		if _, err := ParseNetworks(wrong); err == nil {
			t.Errorf("%q was taken", wrong)
		}
	}
	if n, err := ParseNetworks(""); err != nil || n.allowed != nil {
		t.Errorf("none: %v, %v", n, err)
	}
}
