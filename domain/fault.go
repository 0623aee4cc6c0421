package domain

import (
	"fmt"
	"net/netip"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	maxNameLength        = 100  // characters, of a client's or mapping's name
	maxDescriptionLength = 1000 // characters
	maxUsernameLength    = 64   // characters
	maxEmailLength       = 254  // bytes, RFC 5321 §4.5.3.1.3 less the brackets
	maxHostLength        = 253  // bytes, RFC 1035 §2.3.4 in text form
	publicKeyLength      = 32   // bytes, Ed25519
)

// faults gathers all faults of a command, so that the caller gets them in one answer.
type faults struct{ list []Fault }

func (f *faults) add(field, message string) {
	f.list = append(f.list, Fault{Field: field, Message: message})
}

func (f *faults) err(message string) error {
	if len(f.list) == 0 {
		return nil
	}
	return &Error{Code: CodeInvalid, Message: message, Faults: f.list}
}

// text checks the length in characters and refuses what would let one name forge
// lines in logs and terminals, or look like another: control characters and those
// that turn the direction of writing (Unicode UTS #55).
func (f *faults) text(field, s string, least, most int) {
	n := utf8.RuneCountInString(s)
	switch {
	case !utf8.ValidString(s):
		f.add(field, "must be valid UTF-8")
	case n < least || n > most:
		f.add(field, fmt.Sprintf("must have %d to %d characters, has %d", least, most, n))
	case strings.ContainsFunc(s, unicode.IsControl):
		f.add(field, "must not contain control characters")
	case strings.ContainsFunc(s, turnsDirection):
		f.add(field, "must not contain characters that turn the direction of writing")
	case least > 0 && strings.TrimSpace(s) == "":
		f.add(field, "must not be blank")
	}
}

func turnsDirection(r rune) bool {
	return r == '\u061c' || r == '\u200e' || r == '\u200f' || r >= '\u202a' && r <= '\u202e' || r >= '\u2066' && r <= '\u2069'
}

func (f *faults) username(field, s string) {
	f.text(field, s, 1, maxUsernameLength)
	if strings.ContainsFunc(s, func(r rune) bool {
		return !(unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune("._-@", r))
	}) {
		f.add(field, "may contain letters, digits and . _ - @ only")
	}
}

// email checks the shape only. Only a mail that arrives would show that the address works.
func (f *faults) email(field, s string) {
	local, host, ok := strings.Cut(s, "@")
	if len(s) > maxEmailLength || !utf8.ValidString(s) || !ok || local == "" || host == "" || strings.Contains(host, "@") ||
		strings.ContainsFunc(s, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }) {
		f.add(field, "must be an e-mail address such as ann@example.org")
	}
}

// fixed refuses a new value for a field that never changes.
func fixed[T comparable](f *faults, field string, to *T, is T) {
	if to != nil && *to != is {
		f.add(field, fmt.Sprintf("cannot be changed, is %v", is))
	}
}

func (f *faults) publicKey(key []byte) {
	if len(key) != publicKeyLength {
		f.add("public_key", fmt.Sprintf("must have %d bytes, has %d", publicKeyLength, len(key)))
	}
}

// registeredID refuses the ids of anonymous clients: each of those is an account
// of its own, and a user or managed client with such an id would share its quota.
func (f *faults) registeredID(field string, id int64) {
	if id <= 0 || IsAnonymous(id) {
		f.add(field, "must be positive and outside the anonymous range")
	}
}

func (f *faults) port(field string, port int) {
	if port < 1 || port > 65535 {
		f.add(field, fmt.Sprintf("must be 1 to 65535, is %d", port))
	}
}

// host accepts an IP address without a zone, which would name an interface of
// the target agent and may be any text, or a host name of letters, digits, dots,
// dashes and underscores.
func (f *faults) host(field, s string) {
	if addr, err := netip.ParseAddr(s); err == nil && addr.Zone() == "" {
		return
	}
	bad := s == "" || len(s) > maxHostLength || strings.HasPrefix(s, "-") || strings.HasPrefix(s, ".") || strings.Contains(s, "..")
	for _, r := range s {
		bad = bad || !(r < utf8.RuneSelf && (unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune(".-_", r)))
	}
	if bad {
		f.add(field, "must be an IP address or a host name")
	}
}
