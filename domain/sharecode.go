package domain

import (
	"crypto/sha256"
	"strconv"
	"strings"
)

// A share code is the share's id and 100 random bits, in groups of five characters:
// people send it by mail or read it out on the phone.
const (
	ShareCodeLength = 20 // random characters, of base 32
	shareCodeGroup  = 5
)

// ShareCode gives the code of a share, of its id and the random characters.
func ShareCode(id int64, random string) string {
	var b strings.Builder
	b.WriteString(strconv.FormatInt(id, 10))
	for i := 0; i < ShareCodeLength; i += shareCodeGroup {
		b.WriteString("-" + random[i:i+shareCodeGroup])
	}
	return b.String()
}

// ParseShareCode gives the share and the hash of the code. Case, dashes and blanks do
// not matter.
func ParseShareCode(code string) (id int64, hash []byte, ok bool) {
	number, rest, _ := strings.Cut(strings.ToUpper(strings.TrimSpace(code)), "-")
	id, err := strconv.ParseInt(number, 10, 64)
	rest = strings.NewReplacer("-", "", " ", "").Replace(rest)
	if err != nil || id < 1 || len(rest) != ShareCodeLength {
		return 0, nil, false
	}
	return id, HashShareCode(id, rest), true
}

// HashShareCode gives the hash of a code that the log keeps.
func HashShareCode(id int64, random string) []byte {
	h := sha256.Sum256([]byte("tunnox share code\x00" + strconv.FormatInt(id, 10) + "-" + random))
	return h[:]
}
