package socks

import (
	"bytes"
	"errors"
	"net/netip"
)

// udpHead is what stands before the address in a datagram of an association: two bytes
// that are reserved, and the number of the fragment (RFC 1928, section 7).
const udpHead = 3

// ErrFragment: the datagram is a part of one. Nobody puts them together here, which RFC
// 1928 leaves open.
var ErrFragment = errors.New("socks: datagrams in fragments are not taken")

// OpenDatagram gives what a client's datagram has behind its head: an address, as
// SplitAddress reads it, and the payload.
func OpenDatagram(b []byte) ([]byte, error) {
	if len(b) < udpHead {
		return nil, ErrMalformed
	}
	if b[2] != 0 {
		return nil, ErrFragment
	}
	return b[udpHead:], nil
}

// AppendDatagram puts a datagram for a client behind b: rest is what OpenDatagram gives.
func AppendDatagram(b, rest []byte) []byte { return append(append(b, 0, 0, 0), rest...) }

// SplitAddress reads the address at the beginning of b, and gives what is behind it. The
// host may be a name.
func SplitAddress(b []byte) (Address, []byte, error) {
	r := bytes.NewReader(b)
	a, err := readAddress(r)
	if err != nil {
		return Address{}, nil, err
	}
	return a, b[len(b)-r.Len():], nil
}

// AppendAddress puts an address behind b, zeros if it is not valid.
func AppendAddress(b []byte, a netip.AddrPort) []byte { return appendAddress(b, a) }
