package seal

import (
	"bytes"
	"crypto/sha512"
	"encoding/binary"
	"fmt"
	"strings"
)

const (
	phraseGroups = 8    // of five digits: 132 bits
	phraseRounds = 4096 // of SHA-512: makes a search for two equal phrases dearer
)

// Phrase is what two people compare, by voice or in another channel, to know that nobody
// stands between their agents: eight groups of five digits from both public keys. It is
// the same in whichever order the keys are given, so that both ends show the same.
//
// Whoever wants to stand in between needs two keys of his own that give both ends the
// same phrase. That is a search for a collision of 132 bits, about 2^66 phrases of 4096
// rounds each.
func Phrase(a, b PublicKey) string {
	if bytes.Compare(a[:], b[:]) > 0 {
		a, b = b, a
	}
	keys := append(append([]byte("tunnox phrase 1\x00"), a[:]...), b[:]...)
	sum := sha512.Sum512(keys)
	for range phraseRounds - 1 {
		sum = sha512.Sum512(append(sum[:], keys...))
	}
	groups := make([]string, phraseGroups)
	for i := range groups {
		groups[i] = fmt.Sprintf("%05d", binary.BigEndian.Uint64(sum[8*i:])%100000)
	}
	return strings.Join(groups, " ")
}
