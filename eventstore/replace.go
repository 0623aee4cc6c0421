package eventstore

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
)

var errNoObject = errors.New("eventstore: the data is not a JSON object")

// replaceFields replaces the values of some fields of a JSON object. by gets a value as
// JSON and gives JSON, nil to leave it. All other bytes stay as they are. Every record with personal data goes through here
// whenever it is read, so the function looks at each byte once instead of decoding. It
// does not check the parts that it skips: stores keep only valid JSON.
func replaceFields(data []byte, fields []string, by func(field string, value []byte) ([]byte, error)) ([]byte, error) {
	at := skipSpace(data, 0)
	if at == len(data) || data[at] != '{' {
		return nil, errNoObject
	}
	out, done := []byte(nil), 0
	for at = skipSpace(data, at+1); at < len(data) && data[at] != '}'; {
		end := skipString(data, at)
		if end < 0 {
			return nil, errNoObject
		}
		name := data[at:end]
		if at = skipSpace(data, end); at == len(data) || data[at] != ':' {
			return nil, errNoObject
		}
		at = skipSpace(data, at+1)
		if end = skipValue(data, at); end < 0 {
			return nil, errNoObject
		}
		if field, ok := oneOf(fields, name); ok {
			value, err := by(field, bytes.TrimRight(data[at:end], " \n\t\r"))
			if err != nil {
				return nil, err
			}
			if value != nil {
				if out == nil {
					out = make([]byte, 0, len(data)+64*len(fields))
				}
				out = append(append(out, data[done:at]...), value...)
				done = end
			}
		}
		if at = skipSpace(data, end); at < len(data) && data[at] == ',' {
			at = skipSpace(data, at+1)
		} else if at == len(data) || data[at] != '}' {
			return nil, errNoObject
		}
	}
	if at >= len(data) {
		return nil, errNoObject
	}
	return append(out, data[done:]...), nil
}

// oneOf gives the field whose name is quoted, if it is one of them.
func oneOf(fields []string, quoted []byte) (string, bool) {
	if bytes.IndexByte(quoted, '\\') >= 0 {
		name, err := stringOf(quoted)
		return name, err == nil && slices.Contains(fields, name)
	}
	for _, field := range fields {
		if len(quoted) == len(field)+2 && string(quoted[1:len(quoted)-1]) == field {
			return field, true
		}
	}
	return "", false
}

func skipSpace(data []byte, at int) int {
	for at < len(data) && (data[at] == ' ' || data[at] == '\n' || data[at] == '\t' || data[at] == '\r') {
		at++
	}
	return at
}

// skipString gives the index after the string at at, or -1.
func skipString(data []byte, at int) int {
	if at >= len(data) || data[at] != '"' {
		return -1
	}
	for at++; at < len(data); at++ {
		switch data[at] {
		case '"':
			return at + 1
		case '\\':
			at++
		}
	}
	return -1
}

// skipValue gives the index after the value at at, or -1.
func skipValue(data []byte, at int) int {
	if at < len(data) && data[at] == '"' {
		return skipString(data, at)
	}
	begin, depth := at, 0
	for at < len(data) {
		switch data[at] {
		case '"':
			if at = skipString(data, at); at < 0 {
				return -1
			}
			continue
		case '{', '[':
			depth++
		case ',':
			if depth == 0 && at > begin {
				return at
			}
		case '}', ']':
			if depth == 0 && at > begin {
				return at
			}
			depth--
		}
		if depth < 0 {
			return -1
		}
		at++
	}
	return -1
}

// stringOf gives the text of a JSON string.
func stringOf(quoted []byte) (string, error) {
	plain := string(quoted[1 : len(quoted)-1])
	if isPlain(plain) {
		return plain, nil
	}
	err := json.Unmarshal(quoted, &plain)
	return plain, err
}

// quoted gives s as encoding/json would write it.
func quoted(s string) ([]byte, error) {
	if isPlain(s) {
		return append(append(append(make([]byte, 0, len(s)+2), '"'), s...), '"'), nil
	}
	return json.Marshal(s)
}

// isPlain reports whether a string has no escapes in JSON, and encoding/json would
// write it without any.
func isPlain(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= 0x7f || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			return false
		}
	}
	return true
}
