package datagram

import (
	"net"
	"net/netip"
)

// NewFlow makes a flow whose datagrams the caller brings, with Deliver, and takes, with
// send: where they come from and go to is the caller's business, and may stand in the
// datagrams themselves. send must neither block nor keep the payload; an error of it
// counts as a drop. over is called once, when the flow has ended.
func NewFlow(local, remote net.Addr, counts *Counts, send func(payload []byte) error, over func()) *Flow {
	counts.Open.Add(1)
	return newFlow(local, remote, counts, send, func() {
		counts.Open.Add(-1)
		over()
	})
}

// Deliver gives the flow a datagram that has come, which it copies.
func (f *Flow) Deliver(payload []byte) {
	f.touch()
	if f.push(payload) {
		f.tell()
	}
}

// Receive waits for datagrams and calls each with those that have come: from whom, at
// which address if the socket has several, and what. each must not keep the payload. The
// error is net.ErrClosed when the socket is closed.
func (s *Socket) Receive(each func(from netip.AddrPort, to netip.Addr, payload []byte)) error {
	return s.receive(each)
}

// Answer gives what sends to a source from the address that it has asked at, as Receive
// gives both.
func (s *Socket) Answer(remote netip.AddrPort, local netip.Addr) func(payload []byte) error {
	return s.answer(remote, local)
}
