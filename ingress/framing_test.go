package ingress

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// framed gives what net/http would read.
func framed(src io.Reader) (string, error) {
	got, err := io.ReadAll(newFraming(src))
	return string(got), err
}

func TestFraming(t *testing.T) {
	const host = "Host: a\r\n"
	for name, tt := range map[string]struct {
		in      string
		refused bool
	}{
		"two requests":            {"GET / HTTP/1.1\r\n" + host + "\r\nGET /b HTTP/1.1\r\n" + host + "\r\n", false},
		"a length":                {"POST / HTTP/1.1\r\n" + host + "Content-Length: 5\r\n\r\na\nb\r\nGET / HTTP/1.1\r\n" + host + "\r\n", false},
		"chunks":                  {"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: Chunked\r\n\r\n5;x=y\r\na\n\r\nb\r\n0\r\nT: x\r\n\r\nGET / HTTP/1.1\r\n" + host + "\r\n", false},
		"HTTP/2":                  {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\n\n", false},
		"an unknown coding":       {"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: gzip\r\n\r\n\n\n", false},
		"length and coding":       {"POST / HTTP/1.1\r\n" + host + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", true},
		"coding and length":       {"POST / HTTP/1.1\r\n" + host + "transfer-encoding:chunked\r\nCONTENT-LENGTH:4\r\n\r\n0\r\n\r\n", true},
		"two codings":             {"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n", true},
		"a coding in 1.0":         {"POST / HTTP/1.0\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", true},
		"two lengths":             {"POST / HTTP/1.1\r\n" + host + "Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde", true},
		"two lengths in one":      {"POST / HTTP/1.1\r\n" + host + "Content-Length: 4, 5\r\n\r\nabcde", true},
		"a signed length":         {"POST / HTTP/1.1\r\n" + host + "Content-Length: +4\r\n\r\nabcd", true},
		"an endless length":       {"POST / HTTP/1.1\r\n" + host + "Content-Length: 99999999999999999999\r\n\r\nabcd", true},
		"a bare LF":               {"GET / HTTP/1.1\r\n" + host + "A: b\nC: d\r\n\r\n", true},
		"a bare LF at the end":    {"GET / HTTP/1.1\r\n" + host + "\n", true},
		"a bare LF first":         {"GET / HTTP/1.1\n" + host + "\r\n", true},
		"a bare CR":               {"GET / HTTP/1.1\r\n" + host + "A: b\rC: d\r\n\r\n", true},
		"a NUL":                   {"GET / HTTP/1.1\r\n" + host + "A: \x00\r\n\r\n", true},
		"a space before a colon":  {"GET / HTTP/1.1\r\n" + host + "Content-Length : 4\r\n\r\nabcd", true},
		"a folded line":           {"GET / HTTP/1.1\r\n" + host + "A: b\r\n c\r\n\r\n", true},
		"a folded first line":     {"GET / HTTP/1.1\r\n A: b\r\n" + host + "\r\n", true},
		"no colon":                {"GET / HTTP/1.1\r\n" + host + "A\r\n\r\n", true},
		"no name":                 {"GET / HTTP/1.1\r\n" + host + ": a\r\n\r\n", true},
		"a second bad head":       {"GET / HTTP/1.1\r\n" + host + "\r\nGET /b HTTP/1.1\n\n", true},
		"a chunk that ends in LF": {"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n1\na\r\n0\r\n\r\n", true},
		"a chunk with 0x":         {"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n", true},
		"a chunk that is longer":  {"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n", true},
		"a folded trailer":        {"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n0\r\nA: b\r\n c\r\n\r\n", true},
	} {
		for way, src := range map[string]io.Reader{"at once": strings.NewReader(tt.in), "by bytes": iotest.OneByteReader(strings.NewReader(tt.in)),
			"with deadlines": &late{src: strings.NewReader(tt.in)}} {
			got, err := readOn(newFraming(src))
			switch {
			case err != nil:
				t.Errorf("%s, %s: %v", name, way, err)
			case tt.refused && !strings.HasSuffix(got, string(refusedRequest)):
				t.Errorf("%s, %s: net/http reads %q", name, way, got)
			case !tt.refused && got != tt.in:
				t.Errorf("%s, %s: net/http reads %q of %q", name, way, got, tt.in)
			}
		}
	}
}

// late gives a byte, and then says once that the time is over.
type late struct {
	src io.Reader
	due bool
}

var errLate = errors.New("late")

func (l *late) Read(b []byte) (int, error) {
	if l.due = !l.due; l.due {
		return 0, errLate
	}
	return l.src.Read(b[:min(1, len(b))])
}

// readOn reads to the end, past deadlines.
func readOn(r io.Reader) (string, error) {
	var got bytes.Buffer
	for {
		_, err := got.ReadFrom(r)
		if !errors.Is(err, errLate) {
			return got.String(), err
		}
	}
}

// A head that is too long is net/http's to refuse; what was read goes there.
func TestFramingOfLongHeads(t *testing.T) {
	for _, in := range []string{
		"GET / HTTP/1.1\r\nCookie: " + strings.Repeat("x", 64<<10) + "\r\n\r\n",
		"GET / HTTP/1.1\r\nCookie: " + strings.Repeat("x", 2*maxHead),
		"GET / HTTP/1.1\r\n" + strings.Repeat("A: b\r\n", maxHead/4),
	} {
		if got, err := framed(strings.NewReader(in)); got != in || err != nil {
			t.Errorf("of %d bytes net/http reads %d, %v", len(in), len(got), err)
		}
	}
}

// Once the connection is taken over all of it passes, also what waited.
func TestFramingIsReleased(t *testing.T) {
	const in = "GET / HTTP/1.1\r\nHost: a\r\n\r\nhalf a he"
	f := newFraming(io.MultiReader(strings.NewReader(in), &late{src: strings.NewReader("ad\n\nand more")}))
	b := make([]byte, 100)
	var got string
	for {
		n, err := f.Read(b)
		got += string(b[:n])
		if err != nil {
			break
		}
	}
	f.release()
	rest, err := readOn(f)
	if got+rest != in+"ad\n\nand more" || err != nil {
		t.Errorf("%q and then %q, %v", got, rest, err)
	}
}

// However the bytes come, the same is made of them; nothing passes that did not come, or
// in another order.
func FuzzFraming(f *testing.F) {
	for _, seed := range []string{"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "\r\nGET / HTTP/1.0\r\n\r\n", "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET",
		"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nA: b\r\n\r\nGET", "A\r\n b\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		whole, err := framed(strings.NewReader(in))
		if err != nil {
			t.Fatal(err)
		}
		pieces, err := framed(iotest.OneByteReader(strings.NewReader(in)))
		if err != nil || pieces != whole {
			t.Fatalf("at once %q, by bytes %q, %v", whole, pieces, err)
		}
		passed := strings.TrimSuffix(whole, string(refusedRequest))
		rest := in
		for i := range len(passed) {
			at := strings.IndexByte(rest, passed[i])
			if at < 0 {
				t.Fatalf("%q became %q", in, passed)
			}
			rest = rest[at+1:]
		}
	})
}
