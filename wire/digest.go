package wire

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"slices"

	"github.com/tunnox-net/tunnox/wire/wirepb"
)

// Digest names a set of listeners by content, so that an agent that comes back
// can say what it runs and is told "unchanged" instead of all of it. It is the
// SHA-256 of the listeners in the order of their mapping ids, each as laid down
// in SPEC.md, "Digest". The order of the argument does not matter; it is not
// changed.
func Digest(listeners []*wirepb.Listener) []byte {
	sorted := slices.Clone(listeners)
	slices.SortFunc(sorted, func(a, b *wirepb.Listener) int { return cmp.Compare(a.MappingId, b.MappingId) })
	b := []byte("tunnox configuration 1\x00")
	for _, l := range sorted {
		b = binary.BigEndian.AppendUint64(b, uint64(l.MappingId))
		b = appendString(b, l.Protocol)
		b = appendString(b, l.Host)
		b = binary.BigEndian.AppendUint32(b, l.Port)
		b = binary.BigEndian.AppendUint64(b, l.Version)
		b = appendString(b, l.Name)
	}
	sum := sha256.Sum256(b)
	return sum[:]
}

// appendString appends the length in four bytes, then the bytes, so that no two
// lists of strings look alike.
func appendString(b []byte, s string) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(s)))
	return append(b, s...)
}
