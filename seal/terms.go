package seal

import "encoding/binary"

// Terms is what both ends of a stream must mean alike. A handshake of ends that do not
// fails at the responder.
type Terms struct {
	Mapping     int64  // id
	Source      int64  // client id of the initiator, the agent that listens
	Target      int64  // client id of the responder, the agent that dials
	Protocol    string // what the stream carries: tcp, udp, ...
	Destination string // with socks5: what the initiator's client asks for, host:port
	Version     uint64 // of the mapping, with its options, as the initiator has them
}

// prologue is the form in which the handshake covers the terms: every field has a length
// or one that is fixed, so that no two terms have the same.
func (t Terms) prologue() []byte {
	b := append(make([]byte, 0, 128), "tunnox seal\x00"...)
	b = append(b, Version)
	for _, n := range []uint64{uint64(t.Mapping), uint64(t.Source), uint64(t.Target), t.Version} {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	for _, s := range []string{t.Protocol, t.Destination} {
		b = binary.BigEndian.AppendUint32(b, uint32(len(s)))
		b = append(b, s...)
	}
	return b
}
