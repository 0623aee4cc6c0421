package bridge

import (
	"bytes"
	"errors"
	"testing"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/tunnox-net/tunnox/bridge/bridgepb"
)

// inPieces gives b in pieces of n bytes, as gRPC does.
func inPieces(b []byte, n int) mem.BufferSlice {
	var s mem.BufferSlice
	for len(b) > 0 {
		part := b[:min(n, len(b))]
		s, b = append(s, mem.SliceBuffer(part)), b[len(part):]
	}
	return s
}

func (f *frame) bytes() (b []byte) {
	for _, p := range f.data {
		b = append(b, p.bytes...)
	}
	return b
}

func dataFrame(data []byte) []byte { return append(appendDataHead(nil, len(data)), data...) }

// The generated code reads what the codec writes, and the codec reads what the
// generated code writes.
func TestFramesAreProtobuf(t *testing.T) {
	for name, c := range map[string]struct {
		ours  []byte
		frame *bridgepb.Frame
	}{
		"data":      {dataFrame([]byte("hello")), &bridgepb.Frame{Part: &bridgepb.Frame_Data{Data: []byte("hello")}}},
		"most data": {dataFrame(make([]byte, maxData)), &bridgepb.Frame{Part: &bridgepb.Frame_Data{Data: make([]byte, maxData)}}},
		"grant":     {appendGrant(nil, window), &bridgepb.Frame{Part: &bridgepb.Frame_Grant{Grant: window}}},
		"end":       {appendEnd(nil, bridgepb.End_END_BOTH), &bridgepb.Frame{Part: &bridgepb.Frame_End{End: bridgepb.End_END_BOTH}}},
	} {
		t.Run(name, func(t *testing.T) {
			theirs, err := proto.Marshal(c.frame)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(c.ours, theirs) {
				t.Fatalf("ours %x, protobuf's %x", c.ours, theirs)
			}
			if len(c.ours) > maxFrame {
				t.Errorf("%d bytes, more than a receiver takes", len(c.ours))
			}
			for _, n := range []int{1, 2, 3, 16379, 1 << 20} {
				var f frame
				if err := f.read(inPieces(theirs, n)); err != nil {
					t.Fatalf("in pieces of %d: %v", n, err)
				}
				if !bytes.Equal(f.bytes(), c.frame.GetData()) || f.grant != c.frame.GetGrant() || f.end != c.frame.GetEnd() {
					t.Errorf("in pieces of %d: %+v", n, f)
				}
				f.free()
			}
		})
	}
}

func TestBadFramesAreRefused(t *testing.T) {
	for name, b := range map[string][]byte{
		"empty":                nil,
		"tag alone":            {tagData},
		"data without bytes":   {tagData, 0},
		"data cut short":       {tagData, 3, 1, 2},
		"data and more":        {tagData, 1, 1, 2},
		"too much data":        dataFrame(make([]byte, maxData+1)),
		"endless number":       bytes.Repeat([]byte{0xff}, 12),
		"grant of 0":           {tagGrant, 0},
		"absurd grant":         appendGrant(nil, maxGrant+1),
		"grant and more":       {tagGrant, 1, 1},
		"no end":               {tagEnd, 0},
		"unknown end":          {tagEnd, 9},
		"unknown field":        {7 << 3, 1},
		"data, then a reset":   append(dataFrame([]byte("a")), tagEnd, 3),
		"length of 2^63 bytes": {tagData, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1},
	} {
		var f frame
		if err := f.read(inPieces(b, 1000)); !errors.Is(err, errFrame) {
			t.Errorf("%s: %v", name, err)
		}
		if len(f.data) != 0 {
			t.Errorf("%s: it keeps a buffer", name)
		}
	}
}

func FuzzFrame(f *testing.F) {
	f.Add(dataFrame([]byte("hello")), 3)
	f.Add(appendGrant(nil, 1<<20), 1)
	f.Add(appendEnd(nil, bridgepb.End_END_RESET), 2)
	f.Fuzz(func(t *testing.T, b []byte, n int) {
		var got frame
		if err := got.read(inPieces(b, max(1, n))); err != nil {
			return
		}
		var want bridgepb.Frame
		if err := proto.Unmarshal(b, &want); err != nil {
			t.Fatalf("protobuf refuses %x: %v", b, err)
		}
		if !bytes.Equal(got.bytes(), want.GetData()) || got.grant != want.GetGrant() || got.end != want.GetEnd() {
			t.Fatalf("%x is %+v here and %v there", b, got, &want)
		}
	})
}
