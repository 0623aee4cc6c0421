package wire

import (
	"bytes"
	"testing"

	"github.com/tunnox-net/tunnox/wire/wirepb"
)

// A proof is good for one key and one connection.
func TestLaneProof(t *testing.T) {
	key, other := bytes.Repeat([]byte{1}, LaneKeySize), bytes.Repeat([]byte{2}, LaneKeySize)
	binding := bytes.Repeat([]byte{3}, 32)
	proof := LaneProof(key, binding)
	for name, tt := range map[string]struct {
		key, binding, proof []byte
		good                bool
	}{
		"right":              {key, binding, proof, true},
		"another key":        {other, binding, proof, false},
		"another connection": {key, other, proof, false},
		"cut":                {key, binding, proof[:31], false},
		"none":               {key, binding, nil, false},
		"no key":             {nil, binding, LaneProof(nil, binding), false},
	} {
		if VerifyLane(tt.key, tt.binding, tt.proof) != tt.good {
			t.Errorf("%s: taken is %v", name, !tt.good)
		}
	}
}

// The answer to a lane is its number, or why there is none.
func TestLaneParked(t *testing.T) {
	var b bytes.Buffer
	if err := WriteLaneParked(&b, 7, nil); err != nil {
		t.Fatal(err)
	}
	if err := WriteLaneParked(&b, 8, LaneUnavailable); err != nil {
		t.Fatal(err)
	}
	if id, err := ReadLaneParked(&b); id != 7 || err != nil {
		t.Errorf("%d, %v", id, err)
	}
	if id, err := ReadLaneParked(&b); id != 0 || CodeOf(err) != LaneUnavailable {
		t.Errorf("%d, %v", id, err)
	}
}

// Whatever a stranger sends first, it is a message of a lane or an error, and no long one
// is taken.
func FuzzReadLaneHello(f *testing.F) {
	var b bytes.Buffer
	if err := WriteLaneHello(&b, &wirepb.LaneHello{Session: "S", Proof: make([]byte, 32)}); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add([]byte{255, 255})
	f.Fuzz(func(t *testing.T, in []byte) {
		m, err := ReadLaneHello(bytes.NewReader(in))
		if err == nil && len(m.GetSession())+len(m.GetProof()) > maxLane {
			t.Errorf("%d bytes were taken", len(in))
		}
	})
}
