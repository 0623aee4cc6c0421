package main

import (
	"bytes"
	"encoding/base64"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/checkup"
)

// examined runs doctor and gives what it prints.
func examined(t *testing.T, environ []string, args ...string) (code int, text string) {
	t.Helper()
	var out, errs bytes.Buffer
	s := surroundings{environ: append(environ, "HOME="+t.TempDir()), stdin: strings.NewReader(""), stdout: &out, stderr: &errs}
	code = exitCode(&errs, run(t.Context(), append([]string{"doctor", "--timeout", "2s"}, args...), s))
	return code, out.String() + errs.String()
}

var aPin = "sha256:" + strings.Repeat("ab", 32)

// A proxy that wants a password, one with the wrong password, and one that opens no
// connection: each is named with what to do, and no password is shown.
func TestDoctorNamesWhatAProxyWants(t *testing.T) {
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		want := "Basic " + base64.StdEncoding.EncodeToString([]byte("ann:right"))
		if r.Header.Get("Proxy-Authorization") != want {
			w.WriteHeader(http.StatusProxyAuthRequired)
			return
		}
		w.WriteHeader(http.StatusForbidden)
	}))
	defer proxy.Close()
	at := strings.TrimPrefix(proxy.URL, "http://")
	for with, says := range map[string][]string{
		"":           {"^proxy     ok      http://" + at + " for tunnox.invalid:443\n", "it wants a name and password", "HTTPS_PROXY=http://NAME:PASSWORD@HOST:PORT"},
		"ann:wrong@": {", with a name and password", "it does not accept the name and password"},
		"ann:right@": {"403", "allow CONNECT to tunnox.invalid:443"},
	} {
		code, text := examined(t, []string{"HTTPS_PROXY=http://" + with + at}, "--server", "tunnox.invalid:443", "--pin", aPin)
		for _, want := range says {
			if start, ok := strings.CutPrefix(want, "^"); code != exitFailure || ok && !strings.HasPrefix(text, start) || !ok && !strings.Contains(text, want) {
				t.Errorf("with %q: %d, lacks %q:\n%s", with, code, want, text)
			}
		}
		if strings.Contains(text, "wrong@") || strings.Contains(text, ":right") || strings.Contains(text, "resolves") {
			t.Errorf("with %q it shows a password, or resolves a name that is the proxy's to resolve:\n%s", with, text)
		}
	}
	code, text := examined(t, []string{"HTTPS_PROXY=gopher://x"}, "--server", "tunnox.invalid:443", "--pin", aPin)
	if code != exitFailure || !strings.Contains(text, "HTTPS_PROXY: want http://HOST:PORT") {
		t.Errorf("a proxy that is none: %d\n%s", code, text)
	}
}

// A server that takes connections and says nothing.
func TestDoctorTellsASilentServerFromAClosedPort(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	code, text := examined(t, nil, "--server", silent.Addr().String(), "--pin", aPin, "--timeout", "300ms")
	if code != exitFailure || !strings.Contains(text, "connects  ok") || !strings.Contains(text, "no answer comes: a firewall or proxy on the way may hold this transport back") {
		t.Errorf("%d\n%s", code, text)
	}
}

func TestDoctorComparesClocks(t *testing.T) {
	for ahead, want := range map[time.Duration]string{
		300 * time.Millisecond: "ok differs from the server's by less than 1s", -4 * time.Second: "ok differs from the server's by less than 5s",
		8 * time.Second: "note the clock here is 8s ahead of the server's", -time.Hour: "failed the clock here is 1h0m0s behind the server's",
	} {
		d := &doctor{}
		d.compared(ahead)
		f := d.report.Findings[0]
		if got := string(f.State) + " " + f.Detail; got != want || (f.State == checkup.OK) != (f.Do == "") {
			t.Errorf("%v: %s, do %q; want %s", ahead, got, f.Do, want)
		}
	}
}

// Every line that is not ok says what to do.
func TestDoctorAlwaysSaysWhatToDo(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	for _, server := range []string{closed.Addr().String(), "no-such-name.invalid:1", "wss://" + closed.Addr().String()} {
		_, text := examined(t, nil, "--server", server, "--pin", aPin, "--timeout", "300ms", "--json")
		for _, f := range strings.Split(text, "}") {
			if strings.Contains(f, `"failed"`) && !strings.Contains(f, `"do"`) {
				t.Errorf("%s: no advice in %s", server, f)
			}
		}
	}
}
