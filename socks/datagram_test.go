package socks_test

import (
	"bytes"
	"errors"
	"net/netip"
	"testing"

	"github.com/tunnox-net/tunnox/socks"
)

func TestDatagram(t *testing.T) {
	at := netip.MustParseAddrPort("[2001:db8::1]:53")
	rest := append(socks.AppendAddress(nil, at), "payload"...)
	packet := socks.AppendDatagram(nil, rest)
	opened, err := socks.OpenDatagram(packet)
	if err != nil || !bytes.Equal(opened, rest) {
		t.Fatalf("%x opens as %x, %v", packet, opened, err)
	}
	to, payload, err := socks.SplitAddress(opened)
	if err != nil || to.String() != at.String() || string(payload) != "payload" {
		t.Errorf("it is for %v: %q, %v", to, payload, err)
	}
	packet[2] = 1
	if _, err := socks.OpenDatagram(packet); !errors.Is(err, socks.ErrFragment) {
		t.Errorf("a fragment: %v", err)
	}
}

// FuzzDatagram: no datagram makes the reader fail, or gives an address that cannot be
// passed on, or more than there is.
func FuzzDatagram(f *testing.F) {
	for _, packet := range []string{"", "\x00\x00", "\x00\x00\x00\x01\x7f\x00\x00\x01\x00\x35x", "\x00\x00\x00\x03\x04name\x00\x35x", "\x00\x00\x01\x03\x04name\x00\x35x", "\x00\x00\x00\x03\xffname"} {
		f.Add([]byte(packet))
	}
	f.Fuzz(func(t *testing.T, packet []byte) {
		rest, err := socks.OpenDatagram(packet)
		if err != nil {
			return
		}
		to, payload, err := socks.SplitAddress(rest)
		if err != nil {
			return
		}
		if to.Host == "" || !bytes.HasSuffix(packet, payload) || len(payload) >= len(rest) {
			t.Errorf("%x is for %v with %x", packet, to, payload)
		}
	})
}
