package socks

import (
	"bytes"
	"errors"
	"io"
	"net/netip"
	"testing"
)

// exchange is a client's bytes, and what it is answered.
type exchange struct {
	io.Reader
	answer bytes.Buffer
}

func (e *exchange) Write(b []byte) (int, error) { return e.answer.Write(b) }

func says(b string) *exchange { return &exchange{Reader: bytes.NewReader([]byte(b))} }

func TestGreet(t *testing.T) {
	check := func(username, password string) bool { return username == "ann" && password == "secret" }
	for name, tt := range map[string]struct {
		client string
		check  func(string, string) bool
		answer string
		want   error
	}{
		"no password":          {"\x05\x01\x00", nil, "\x05\x00", nil},
		"several methods":      {"\x05\x03\x01\x02\x00", nil, "\x05\x00", nil},
		"right password":       {"\x05\x02\x00\x02\x01\x03ann\x06secret", check, "\x05\x02\x01\x00", nil},
		"wrong password":       {"\x05\x01\x02\x01\x03ann\x06Secret", check, "\x05\x02\x01\x01", ErrCredentials},
		"no way to prove":      {"\x05\x01\x00", check, "\x05\xff", ErrMethods},
		"only with a password": {"\x05\x01\x02", nil, "\x05\xff", ErrMethods},
		"SOCKS 4":              {"\x04\x01\x00\x50\x7f\x00\x00\x01\x00", nil, "", ErrMalformed},
		"HTTP":                 {"GET / HTTP/1.1\r\n", nil, "", ErrMalformed},
		"cut off":              {"\x05\x03\x00", nil, "", ErrMalformed},
		"password cut off":     {"\x05\x01\x02\x01\x03ann\x06sec", check, "\x05\x02", ErrMalformed},
	} {
		e := says(tt.client)
		if err := Greet(e, tt.check); !errors.Is(err, tt.want) || e.answer.String() != tt.answer {
			t.Errorf("%s: %v, answered %q, want %v and %q", name, err, e.answer.String(), tt.want, tt.answer)
		}
	}
}

func TestReadRequest(t *testing.T) {
	for name, tt := range map[string]struct {
		client  string
		command Command
		address string
		answer  string
	}{
		"IPv4":         {"\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x50", Connect, "127.0.0.1:80", ""},
		"IPv6":         {"\x05\x03\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x01\xbb", Associate, "[::1]:443", ""},
		"mapped":       {"\x05\x01\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\x0a\x00\x00\x01\x01\xbb", Connect, "10.0.0.1:443", ""},
		"a name":       {"\x05\x02\x00\x03\x0bexample.org\x00\x16", Bind, "example.org:22", ""},
		"text address": {"\x05\x01\x00\x03\x03::1\x00\x16", Connect, "[::1]:22", ""},
		"other kind":   {"\x05\x01\x00\x02\x00", Connect, "", "\x05\x08\x00\x01\x00\x00\x00\x00\x00\x00"},
		"no name":      {"\x05\x01\x00\x03\x00\x00\x16", Connect, "", ""},
		"with a space": {"\x05\x01\x00\x03\x03a b\x00\x16", Connect, "", ""},
		"with a port":  {"\x05\x01\x00\x03\x03a:1\x00\x16", Connect, "", ""},
	} {
		e := says(tt.client)
		command, address, err := ReadRequest(e)
		got := address.String()
		if err != nil {
			got = ""
		}
		if command != tt.command && err == nil || got != tt.address || e.answer.String() != tt.answer || (err != nil) != (tt.address == "") {
			t.Errorf("%s: %d %q, %v, answered %q", name, command, got, err, e.answer.String())
		}
	}
}

func TestWriteReply(t *testing.T) {
	for address, want := range map[string]string{
		"":              "\x05\x02\x00\x01\x00\x00\x00\x00\x00\x00",
		"10.0.0.1:1080": "\x05\x02\x00\x01\x0a\x00\x00\x01\x04\x38",
		"[::1]:1080":    "\x05\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x04\x38",
	} {
		var b bytes.Buffer
		bound, _ := netip.ParseAddrPort(address)
		if err := WriteReply(&b, NotAllowed, bound); err != nil || b.String() != want {
			t.Errorf("%q is %q, %v, want %q", address, b.String(), err, want)
		}
	}
}

// FuzzRequest: whatever a client says is refused or understood, and what is understood
// is the same when it is said again.
func FuzzRequest(f *testing.F) {
	f.Add([]byte("\x05\x02\x00\x02\x01\x03ann\x06secret\x05\x01\x00\x03\x0bexample.org\x00\x16"))
	f.Add([]byte("\x05\x01\x00\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x50"))
	f.Fuzz(func(t *testing.T, data []byte) {
		e := &exchange{Reader: bytes.NewReader(data)}
		var check func(string, string) bool
		if len(data)%2 == 0 {
			check = func(string, string) bool { return true }
		}
		if Greet(e, check) != nil {
			return
		}
		_, address, err := ReadRequest(e)
		if err != nil {
			return
		}
		if ip, err := netip.ParseAddr(address.Host); err == nil {
			again := &exchange{Reader: bytes.NewReader(appendAddress([]byte{5, 1, 0}, netip.AddrPortFrom(ip, address.Port)))}
			if _, same, err := ReadRequest(again); err != nil || same.String() != netip.AddrPortFrom(ip.Unmap(), address.Port).String() {
				t.Errorf("%v is read as %v, %v", address, same, err)
			}
		}
	})
}
