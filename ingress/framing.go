package ingress

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strings"
)

// framing stands between a visitor's HTTP/1 connection and net/http. It passes on the head
// of a request only if the head can be read in one way. If two programs read the same
// bytes differently, requests can be smuggled past rules (RFC 9112, sections 5.1, 6.1
// and 11.2). net/http is more lenient: it accepts bare LF and folded lines, and ignores
// Content-Length beside Transfer-Encoding.
//
// A head waits here until it is complete, so that no part of a bad head has an effect.
// Bodies pass at once; only their framing is read. In place of a bad head net/http gets a
// request for refusedHost, which is answered with 400.
type framing struct {
	src   *bufio.Reader
	state framingState
	left  int64  // of the body or chunk
	head  []byte // of a request, as far as it has come
	lines int    // of it
	line  []byte // the line that is being read
	ready []byte // what net/http is to get next
}

type framingState int

const (
	inHead framingState = iota
	inBody
	inChunkSize
	inChunk
	inChunkEnd
	inTrailer
	unframed // no longer HTTP/1, or too long for net/http too
	refused
)

const (
	// refusedHost is the host of the request that replaces a bad head. No DNS has a name
	// below .invalid (RFC 6761).
	refusedHost = "refused.invalid"
	// maxHead is the longest head. net/http answers 431 far below it.
	maxHead = maxHeader + 8<<10
	// maxChunkLine bounds a chunk's size with its extensions, and a trailer's line.
	maxChunkLine = 4 << 10
)

var refusedRequest = []byte("GET / HTTP/1.1\r\nHost: " + refusedHost + "\r\nConnection: close\r\n\r\n")

func newFraming(src io.Reader) *framing { return &framing{src: bufio.NewReader(src)} }

// Read implements io.Reader. After a temporary error, such as a deadline, it can be called
// again.
func (f *framing) Read(b []byte) (int, error) {
	for len(f.ready) == 0 {
		switch f.state {
		case unframed:
			return f.src.Read(b)
		case refused:
			return 0, io.EOF
		case inBody, inChunk:
			n, err := f.src.Read(b[:min(int64(len(b)), f.left)])
			if f.left -= int64(n); f.left == 0 {
				f.state = map[framingState]framingState{inBody: inHead, inChunk: inChunkEnd}[f.state]
			}
			if n > 0 || err != nil || len(b) == 0 {
				return n, err
			}
		default:
			if err := f.readLine(); err != nil {
				return 0, err
			}
		}
	}
	n := copy(b, f.ready)
	if f.ready = f.ready[n:]; len(f.ready) == 0 {
		f.ready = nil
	}
	return n, nil
}

// release passes on everything from now on, because the connection was taken over.
func (f *framing) release() {
	if f.state != refused {
		f.ready = append(append(f.ready, f.head...), f.line...)
		f.head, f.line, f.state = nil, nil, unframed
	}
}

// readLine reads a line and handles it as the state says.
func (f *framing) readLine() error {
	part, err := f.src.ReadSlice('\n')
	f.line = append(f.line, part...)
	switch {
	case len(f.head)+len(f.line) > maxHead && f.state == inHead:
		f.release()
		return nil
	case len(f.line) > maxChunkLine && f.state != inHead:
		f.refuse()
		return nil
	case errors.Is(err, bufio.ErrBufferFull):
		return nil
	case err != nil:
		return err
	}
	line := f.line
	f.line = nil
	text, ok := bytes.CutSuffix(line, []byte("\r\n"))
	if !ok || bytes.ContainsAny(text, "\r\x00") {
		f.refuse()
		return nil
	}
	switch f.state {
	case inHead:
		f.headLine(line, text)
	case inChunkSize:
		f.chunkSize(line, text)
	case inChunkEnd:
		if f.pass(line, inChunkSize); len(text) > 0 {
			f.refuse()
		}
	case inTrailer:
		switch {
		case len(text) == 0:
			f.pass(line, inHead)
		case fieldName(text) == "":
			f.refuse()
		default:
			f.pass(line, inTrailer)
		}
	}
	return nil
}

func (f *framing) pass(line []byte, next framingState) { f.ready, f.state = line, next }

func (f *framing) refuse() {
	f.ready, f.state, f.head, f.line = bytes.Clone(refusedRequest), refused, nil, nil
}

// headLine handles a line of a head. It ignores an empty line before the head, as RFC
// 9112, 2.2, asks.
func (f *framing) headLine(line, text []byte) {
	switch {
	case len(text) == 0 && f.lines == 0:
	case len(text) == 0:
		f.headEnds(append(f.head, line...))
	case f.lines > 0 && fieldName(text) == "": // also a folded line
		f.refuse()
	default:
		f.head = append(f.head, line...)
		f.lines++
	}
}

// headEnds checks a complete head.
func (f *framing) headEnds(head []byte) {
	f.head, f.lines = nil, 0
	if bytes.HasPrefix(head, []byte("PRI * HTTP/2.0\r\n")) {
		f.pass(head, unframed)
		return
	}
	request, fields, _ := strings.Cut(string(head), "\r\n")
	var lengths, codings []string
	for field := range strings.SplitSeq(fields, "\r\n") {
		name, value, _ := strings.Cut(field, ":")
		switch strings.ToLower(name) {
		case "content-length":
			lengths = append(lengths, strings.Trim(value, " \t"))
		case "transfer-encoding":
			codings = append(codings, strings.Trim(value, " \t"))
		}
	}
	switch {
	case len(codings) > 0 && (len(lengths) > 0 || len(codings) > 1 || strings.HasSuffix(request, "HTTP/1.0")), len(lengths) > 1:
		f.refuse()
	case len(codings) > 0 && strings.EqualFold(codings[0], "chunked"):
		f.pass(head, inChunkSize)
	case len(codings) > 0: // net/http says which it does not know, and ends the connection
		f.pass(head, unframed)
	case len(lengths) == 0:
		f.pass(head, inHead)
	default:
		length, ok := number(lengths[0], 10)
		switch {
		case !ok:
			f.refuse()
		case length == 0:
			f.pass(head, inHead)
		default:
			f.left = length
			f.pass(head, inBody)
		}
	}
}

// chunkSize reads the line before a chunk: hexadecimal digits, and perhaps extensions.
func (f *framing) chunkSize(line, text []byte) {
	digits, _, _ := strings.Cut(string(text), ";")
	size, ok := number(strings.TrimRight(digits, " \t"), 16)
	switch {
	case !ok:
		f.refuse()
	case size == 0:
		f.pass(line, inTrailer)
	default:
		f.left = size
		f.pass(line, inChunk)
	}
}

// number reads a length: only digits, no sign, and not so many that it overflows.
func number(s string, base int64) (n int64, ok bool) {
	if s == "" || len(s) > 15 {
		return 0, false
	}
	for _, r := range strings.ToLower(s) {
		digit := int64(strings.IndexRune("0123456789abcdef", r))
		if digit < 0 || digit >= base {
			return 0, false
		}
		n = n*base + digit
	}
	return n, true
}

// fieldName gives the name of a field line: a token followed directly by a colon (RFC
// 9112, section 5). It gives "" for another line.
func fieldName(line []byte) string {
	name, _, ok := strings.Cut(string(line), ":")
	if !ok || strings.Trim(name, "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" {
		return ""
	}
	return name
}
