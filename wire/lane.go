package wire

import (
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"io"

	"github.com/tunnox-net/tunnox/wire/wirepb"
)

// LaneKeySize is the length of Welcome.lane_key, in bytes.
const LaneKeySize = 32

// LaneProof proves that a lane is of the session that was given the key: it is bound to
// the lane's own TLS connection.
func LaneProof(key, binding []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte("tunnox lane\x00"))
	h.Write(binding)
	return h.Sum(nil)
}

// VerifyLane checks a LaneProof. A key of another length proves nothing.
func VerifyLane(key, binding, proof []byte) bool {
	return len(key) == LaneKeySize && hmac.Equal(LaneProof(key, binding), proof)
}

// maxLane bounds the messages of a lane, in bytes.
const maxLane = 512

// WriteLaneHello begins a lane.
func WriteLaneHello(w io.Writer, m *wirepb.LaneHello) error {
	return writeFrame(w, m, openPrefix, maxLane)
}

// ReadLaneHello reads the first message of a lane.
func ReadLaneHello(r io.Reader) (*wirepb.LaneHello, error) {
	m := new(wirepb.LaneHello)
	return m, readFrame(r, m, openPrefix, maxLane)
}

// WriteLaneParked answers a LaneHello: the lane has this name in the session, or err says
// why there is none.
func WriteLaneParked(w io.Writer, lane uint64, err error) error {
	m := &wirepb.LaneParked{Lane: lane}
	if err != nil {
		r := refusalOf(err)
		m.Code, m.Message, m.Lane = string(r.Code), clip(r.Message, maxLane/2), 0
	}
	return writeFrame(w, m, openPrefix, maxLane)
}

// ReadLaneParked reads the answer to a LaneHello, and not one byte more. The error is a
// *Refusal when the answer is no.
func ReadLaneParked(r io.Reader) (lane uint64, err error) {
	m := new(wirepb.LaneParked)
	if err := readFrame(r, m, openPrefix, maxLane); err != nil {
		return 0, fmt.Errorf("read the answer to a lane: %w", err)
	}
	if m.Code == "" {
		return m.Lane, nil
	}
	refusal := Refuse(Code(m.Code))
	if m.Message != "" {
		refusal.Message = m.Message
	}
	return 0, refusal
}
