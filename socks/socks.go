package socks

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
)

const (
	version     = 5
	authVersion = 1 // of RFC 1929

	methodNone     = 0x00
	methodPassword = 0x02
	methodRefused  = 0xff

	typeIPv4 = 0x01
	typeName = 0x03
	typeIPv6 = 0x04
)

// Command is what a client asks for.
type Command byte

// The commands of RFC 1928.
const (
	Connect   Command = 1
	Bind      Command = 2
	Associate Command = 3
)

// Reply is the answer to a request.
type Reply byte

// The replies of RFC 1928, section 6.
const (
	Succeeded          Reply = 0
	Failed             Reply = 1
	NotAllowed         Reply = 2
	NetworkUnreachable Reply = 3
	HostUnreachable    Reply = 4
	Refused            Reply = 5
	TTLExpired         Reply = 6
	NoSuchCommand      Reply = 7
	NoSuchAddressType  Reply = 8
)

// Errors of a client that breaks the protocol, or does not prove who it is.
var (
	ErrMalformed   = errors.New("socks: the client does not speak SOCKS 5")
	ErrMethods     = errors.New("socks: the client offers no way to authenticate that is taken here")
	ErrCredentials = errors.New("socks: the user name or the password is wrong")
)

// Address is a host, by name or by IP address, and a port.
type Address struct {
	Host string
	Port uint16
}

// String is host:port, as net.Dial takes it.
func (a Address) String() string { return net.JoinHostPort(a.Host, strconv.Itoa(int(a.Port))) }

// Greet agrees with a client on how it authenticates, and has it do so. check tells
// whether a user name and a password are right; nil asks for none. The client has been
// told when an error is returned.
func Greet(conn io.ReadWriter, check func(username, password string) bool) error {
	var head [2]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if head[0] != version {
		return ErrMalformed // what it speaks is not known, so nothing can be answered
	}
	methods := make([]byte, head[1])
	if _, err := io.ReadFull(conn, methods); err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	want := byte(methodNone)
	if check != nil {
		want = methodPassword
	}
	if bytes.IndexByte(methods, want) < 0 {
		_, _ = conn.Write([]byte{version, methodRefused})
		return ErrMethods
	}
	if _, err := conn.Write([]byte{version, want}); err != nil {
		return err
	}
	if check == nil {
		return nil
	}
	username, password, err := readCredentials(conn)
	if err != nil {
		return err
	}
	if !check(username, password) {
		_, _ = conn.Write([]byte{authVersion, 1})
		return ErrCredentials
	}
	_, err = conn.Write([]byte{authVersion, 0})
	return err
}

func readCredentials(r io.Reader) (username, password string, err error) {
	var one [1]byte
	if _, err := io.ReadFull(r, one[:]); err != nil || one[0] != authVersion {
		return "", "", ErrMalformed
	}
	var parts [2]string
	for i := range parts {
		if _, err := io.ReadFull(r, one[:]); err != nil {
			return "", "", fmt.Errorf("%w: %w", ErrMalformed, err)
		}
		text := make([]byte, one[0])
		if _, err := io.ReadFull(r, text); err != nil {
			return "", "", fmt.Errorf("%w: %w", ErrMalformed, err)
		}
		parts[i] = string(text)
	}
	return parts[0], parts[1], nil
}

// ReadRequest reads what a client asks for. For an address of a kind that nobody knows
// the client has been told.
func ReadRequest(conn io.ReadWriter) (Command, Address, error) {
	var head [3]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil || head[0] != version {
		return 0, Address{}, ErrMalformed
	}
	address, err := readAddress(conn)
	if errors.Is(err, errAddressType) {
		_ = WriteReply(conn, NoSuchAddressType, netip.AddrPort{})
	}
	return Command(head[1]), address, err
}

var errAddressType = fmt.Errorf("%w: an address of a kind that there is not", ErrMalformed)

func readAddress(r io.Reader) (Address, error) {
	var kind [1]byte
	if _, err := io.ReadFull(r, kind[:]); err != nil {
		return Address{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	size := 0
	switch kind[0] {
	case typeIPv4:
		size = 4
	case typeIPv6:
		size = 16
	case typeName:
		if _, err := io.ReadFull(r, kind[:]); err != nil {
			return Address{}, fmt.Errorf("%w: %w", ErrMalformed, err)
		}
		size = int(kind[0])
		kind[0] = typeName
	default:
		return Address{}, errAddressType
	}
	text := make([]byte, size+2)
	if _, err := io.ReadFull(r, text); err != nil {
		return Address{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	a := Address{Port: binary.BigEndian.Uint16(text[size:])}
	if kind[0] == typeName {
		a.Host = string(text[:size])
		if !validHost(a.Host) {
			return Address{}, fmt.Errorf("%w: the name of the host", ErrMalformed)
		}
		return a, nil
	}
	ip, _ := netip.AddrFromSlice(text[:size])
	a.Host = ip.Unmap().String()
	return a, nil
}

// validHost tells whether a name can be passed on in messages and logs: visible ASCII
// without what net.SplitHostPort gives another meaning.
func validHost(name string) bool {
	if name == "" {
		return false
	}
	for _, c := range []byte(name) {
		if c <= ' ' || c >= 0x7f || c == '[' || c == ']' || c == '%' || c == '/' {
			return false
		}
	}
	if bytes.IndexByte([]byte(name), ':') >= 0 {
		_, err := netip.ParseAddr(name) // some clients send addresses as names
		return err == nil
	}
	return true
}

// WriteReply answers a request. bound is the address that the client is told, zeros if
// it is not valid.
func WriteReply(w io.Writer, reply Reply, bound netip.AddrPort) error {
	_, err := w.Write(appendAddress([]byte{version, byte(reply), 0}, bound))
	return err
}

func appendAddress(b []byte, a netip.AddrPort) []byte {
	ip := a.Addr().Unmap()
	switch {
	case ip.Is4():
		b = append(append(b, typeIPv4), ip.AsSlice()...)
	case ip.Is6():
		b = append(append(b, typeIPv6), ip.AsSlice()...)
	default:
		b = append(b, typeIPv4, 0, 0, 0, 0)
	}
	return binary.BigEndian.AppendUint16(b, a.Port())
}
