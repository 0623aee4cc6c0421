package domain

import (
	"crypto/sha256"
	"strconv"
	"strings"
)

// A share code is the share's id and 100 random bits in groups of five: it is
// passed on by people, by mail and over the phone.
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

// ParseShareCode gives the share and the hash of the code, whatever case it is in
// and wherever people put dashes and blanks.
func ParseShareCode(code string) (id int64, hash []byte, ok bool) {
	number, rest, _ := strings.Cut(strings.ToUpper(strings.TrimSpace(code)), "-")
	id, err := strconv.ParseInt(number, 10, 64)
	rest = strings.NewReplacer("-", "", " ", "").Replace(rest)
	if err != nil || id < 1 || len(rest) != ShareCodeLength {
		return 0, nil, false
	}
	return id, HashShareCode(id, rest), true
}

// HashShareCode is what the log keeps of a code.
func HashShareCode(id int64, random string) []byte {
	h := sha256.Sum256([]byte("tunnox share code\x00" + strconv.FormatInt(id, 10) + "-" + random))
	return h[:]
}
