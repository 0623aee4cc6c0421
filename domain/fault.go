package domain

import (
	"fmt"
	"net/netip"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/secure/precis"
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
	default:
		f.unseen(field, s)
	}
}

// unseen refuses characters that nobody sees, such as a space of no width: with them two
// names look the same (RFC 8264, FreeformClass).
func (f *faults) unseen(field, s string) {
	if s == "" {
		return
	}
	if _, err := precis.OpaqueString.String(withoutEmojiJoiners(s)); err != nil {
		f.add(field, "must not contain characters that cannot be seen or that have no meaning")
	}
}

// withoutEmojiJoiners leaves out what joins two emoji to one, which PRECIS does not know.
func withoutEmojiJoiners(s string) string {
	const joiner, asEmoji = '\u200d', '\ufe0f'
	runes := []rune(s)
	plain := func(i int) bool {
		return i < 0 || i >= len(runes) || unicode.IsLetter(runes[i]) || unicode.IsDigit(runes[i]) || unicode.IsSpace(runes[i])
	}
	var b strings.Builder
	for i, r := range runes {
		if (r == joiner || r == asEmoji) && !plain(i-1) && (r == asEmoji || !plain(i+1)) {
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

// identifier refuses what can be taken for another identifier: forms that Unicode has
// for compatibility, mixed directions of writing (RFC 8265, UsernameCasePreserved), and
// Latin letters among those of Greek or Cyrillic, which look the same.
func (f *faults) identifier(field, s string) {
	if same, err := precis.UsernameCasePreserved.String(s); err != nil || same != s {
		f.add(field, "must be of letters and digits in their usual form, in one direction of writing")
	}
	latin, other := false, false
	for _, r := range s {
		latin = latin || unicode.Is(unicode.Latin, r)
		other = other || unicode.In(r, unicode.Cyrillic, unicode.Greek)
	}
	if latin && other {
		f.add(field, "must not mix Latin letters with those of another script that look the same")
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
	} else if s != "" && utf8.ValidString(s) {
		f.identifier(field, s)
	}
}

// email checks the shape only. Only a mail that arrives would show that the address works.
func (f *faults) email(field, s string) {
	local, host, ok := strings.Cut(s, "@")
	if len(s) > maxEmailLength || !utf8.ValidString(s) || !ok || local == "" || host == "" || strings.Contains(host, "@") ||
		strings.ContainsFunc(s, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }) {
		f.add(field, "must be an e-mail address such as ann@example.org")
		return
	}
	f.identifier(field, local)
	for label := range strings.SplitSeq(host, ".") {
		if label != "" {
			f.identifier(field, label)
		}
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
