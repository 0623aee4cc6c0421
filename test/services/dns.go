package services

import (
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// DNS is a name server over UDP and TCP that knows what a test has told it.
type DNS struct {
	Addr string // host:port

	mu        sync.Mutex
	addresses map[string]netip.Addr // guarded by mu; "*.example.org" is every name below it
	texts     map[string][]string   // guarded by mu
	asked     map[string]int        // guarded by mu
}

// StartDNS starts a name server, which ends with the test.
func StartDNS(t testing.TB) *DNS {
	t.Helper()
	var conn net.PacketConn
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err == nil {
		conn, err = net.ListenPacket("udp", listener.Addr().String())
	}
	if err != nil {
		t.Fatal(err)
	}
	d := &DNS{Addr: conn.LocalAddr().String(), addresses: map[string]netip.Addr{}, texts: map[string][]string{}, asked: map[string]int{}}
	var serving sync.WaitGroup
	serving.Go(func() { d.serve(conn) })
	serving.Go(func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { d.serveTCP(c) })
		}
	})
	t.Cleanup(func() {
		_, _ = conn.Close(), listener.Close()
		serving.Wait()
	})
	return d
}

// SetAddress says where a name leads.
func (d *DNS) SetAddress(name, address string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.addresses[name] = netip.MustParseAddr(address)
}

// SetText gives a name TXT records, instead of those that it has.
func (d *DNS) SetText(name string, texts ...string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.texts[name] = texts
}

// Asked gives how often a name was asked for.
func (d *DNS) Asked(name string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.asked[name]
}

func (d *DNS) serve(conn net.PacketConn) {
	packet := make([]byte, 4096)
	for {
		n, from, err := conn.ReadFrom(packet)
		if err != nil {
			return
		}
		if answer := d.answer(packet[:n]); answer != nil {
			_, _ = conn.WriteTo(answer, from) // who asks will ask again
		}
	}
}

// serveTCP answers one question (RFC 1035, section 4.2.2).
func (d *DNS) serveTCP(c net.Conn) {
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	var length [2]byte
	if _, err := io.ReadFull(c, length[:]); err != nil {
		return
	}
	packet := make([]byte, binary.BigEndian.Uint16(length[:]))
	if _, err := io.ReadFull(c, packet); err != nil {
		return
	}
	if answer := d.answer(packet); answer != nil {
		_, _ = c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...))
	}
}

// answer gives nil for what is no question.
func (d *DNS) answer(packet []byte) []byte {
	var m dnsmessage.Message
	if m.Unpack(packet) != nil || len(m.Questions) != 1 {
		return nil
	}
	q := m.Questions[0]
	name := strings.ToLower(strings.TrimSuffix(q.Name.String(), "."))
	answer := dnsmessage.Message{Header: dnsmessage.Header{ID: m.ID, Response: true, Authoritative: true, RecursionDesired: m.RecursionDesired,
		RecursionAvailable: true}, Questions: m.Questions}
	header := dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 0}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked[name]++
	address, known := d.addresses[name]
	for parent := name; !known && strings.Contains(parent, "."); {
		_, parent, _ = strings.Cut(parent, ".")
		address, known = d.addresses["*."+parent]
	}
	texts, told := d.texts[name]
	switch {
	case q.Type == dnsmessage.TypeA && known && address.Is4():
		header.Type = dnsmessage.TypeA
		answer.Answers = []dnsmessage.Resource{{Header: header, Body: &dnsmessage.AResource{A: address.As4()}}}
	case q.Type == dnsmessage.TypeTXT:
		header.Type = dnsmessage.TypeTXT
		for _, text := range texts {
			answer.Answers = append(answer.Answers, dnsmessage.Resource{Header: header, Body: &dnsmessage.TXTResource{TXT: []string{text}}})
		}
	}
	if !known && !told {
		answer.RCode = dnsmessage.RCodeNameError
	}
	packed, err := answer.Pack()
	if err != nil {
		return nil
	}
	return packed
}
