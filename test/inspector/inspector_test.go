// Package inspector opens the inspector's page in a browser, with the real programs on the
// other side of it.
package inspector

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/tunnox-net/tunnox/test/programs"
)

func TestMain(m *testing.M) { programs.Main(m) }

const limit = 30 * time.Second

// hostile is what a visitor might send to move the page of whoever looks.
const hostile = `<img src=x onerror="document.title='taken'"><script>document.title='taken'</script>`

func TestThePageInABrowser(t *testing.T) {
	service, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Service", hostile)
		if r.URL.Path == "/missing" {
			w.WriteHeader(http.StatusNotFound)
		}
		fmt.Fprintf(w, "%s saw %s", r.Method, body)
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(service) }()
	t.Cleanup(func() { _ = server.Close(); <-done })

	s := programs.Serve(t)
	var made struct{ Code string }
	s.API.Do(t, http.MethodPost, "/api/v1/invites", map[string]any{"user_id": s.API.CreateUser(t, "ann").ID}, &made)
	state := filepath.Join(t.TempDir(), "laptop")
	if err := programs.Start(t, "tunnox", nil, "join", made.Code, "--state", state, "--name", "laptop").Wait(limit); err != nil {
		t.Fatal(err)
	}
	web := programs.Start(t, "tunnox", nil, "http", strconv.Itoa(service.Addr().(*net.TCPAddr).Port), "--inspect", "--json", "--state", state)
	var ready struct{ URL, Inspector string }
	if err := json.Unmarshal([]byte(web.Says(`(?m)^(\{.*\})$`, limit)[1]), &ready); err != nil || ready.Inspector == "" {
		t.Fatalf("%+v, %v", ready, err)
	}
	public, err := url.Parse(ready.URL)
	if err != nil {
		t.Fatal(err)
	}
	visitor := &http.Client{Timeout: limit, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, net.JoinHostPort("127.0.0.1", public.Port()))
		}}}
	visit := func(method, path, body string) {
		t.Helper()
		r, err := http.NewRequest(method, public.Scheme+"://"+public.Host+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := visitor.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
	}
	visit("POST", "/before?x=1", `{"paid":true}`)

	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.NoSandbox, chromedp.Flag("disable-dev-shm-usage", true))
	allocator, stop := chromedp.NewExecAllocator(t.Context(), options...)
	defer stop()
	tab, closeTab := chromedp.NewContext(allocator)
	defer closeTab()
	tab, cancel := context.WithTimeout(tab, 2*limit)
	defer cancel()
	run := func(what string, steps ...chromedp.Action[chromedp.Void]) {
		t.Helper()
		if err := chromedp.Do(tab, steps...); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	text := func(of string) string {
		t.Helper()
		got, err := chromedp.Run(tab, chromedp.Evaluate[string](of))
		if err != nil {
			t.Fatalf("%s: %v", of, err)
		}
		return got
	}
	shows := func(what string) chromedp.Action[chromedp.Void] {
		return chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
			for {
				is, err := chromedp.Evaluate[bool](`document.getElementById("detail").innerText.includes(`+strconv.Quote(what)+`)`)(ctx, target)
				if is || err != nil {
					return err
				}
				select {
				case <-ctx.Done():
					return fmt.Errorf("the page does not show %q: %w", what, ctx.Err())
				case <-time.After(20 * time.Millisecond):
				}
			}
		})
	}
	const detail = `document.getElementById("detail").innerText`

	// A request from before the page was opened is there, and the token is out of sight.
	run("open the page", chromedp.Navigate(ready.Inspector), chromedp.WaitVisible("#x1"))
	if address := text("location.href"); strings.Contains(address, "token") {
		t.Errorf("the address bar shows %s", address)
	}
	// What comes now appears without a reload, as text whatever it is.
	visit("POST", "/missing?"+url.QueryEscape(hostile), hostile)
	run("see a live request", chromedp.WaitVisible("#x2"), chromedp.Click("#x2"), shows("404"), shows("onerror"))
	if title := text("document.title"); title != "Tunnox inspector" {
		t.Errorf("a visitor changed the page: its title is %q", title)
	}
	run("filter", chromedp.SendKeys("#filter", "before"), chromedp.WaitNotPresent("#x2"), chromedp.Click("#x1"), shows(`"paid": true`))
	run("replay", chromedp.Click("#replay"), shows("replay of 1"), chromedp.WaitVisible("#x3"))
	run("replay changed", chromedp.Click("#change"), chromedp.WaitVisible("#edit-body"), chromedp.SendKeys("#edit-body", "changed "),
		chromedp.Click("#edit-send"), shows("replay of 3"), shows("changed"), chromedp.WaitVisible("#x4"))
	run("compare", chromedp.Click("#x3 input"), chromedp.Click("#x4 input"), chromedp.Click("#compare"), chromedp.WaitVisible("#diff"))
	if got := text(detail); !strings.Contains(got, "+ ") || !strings.Contains(got, "- ") || !strings.Contains(got, "changed") {
		t.Errorf("the difference is %q", got)
	}
	text(`navigator.clipboard ? (navigator.clipboard.writeText = () => Promise.reject(new Error("none")), "") : ""`)
	run("copy as curl", chromedp.Click("#x1"), shows("Copy as curl"), chromedp.Click("#curl"), shows("curl -X POST"))
	if got := text(detail); !strings.Contains(got, `--data-binary '{"paid":true}'`) {
		t.Errorf("curl: %q", got)
	}
}
