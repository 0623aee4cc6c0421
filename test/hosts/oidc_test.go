package hosts

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tunnox-net/tunnox/test/programs"
)

// browser is a visitor with cookies of their own, for whom the names of public hosts lead
// to the server.
func (w *world) browser() *http.Client {
	jar, err := cookiejar.New(nil)
	if err != nil {
		w.t.Fatal(err)
	}
	transport := &http.Transport{DialContext: func(ctx context.Context, network, to string) (net.Conn, error) {
		if strings.Contains(to, baseDomain) {
			to = w.address
		}
		return new(net.Dialer).DialContext(ctx, network, to)
	}}
	w.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: limit, Jar: jar}
}

// stays is a browser that follows no redirect.
func stays(c *http.Client) *http.Client {
	other := *c
	other.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &other
}

// ask asks for a page as a browser does, and gives the answer with its body.
func ask(t *testing.T, c *http.Client, to string, headers ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, to, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "text/html")
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header[headers[i]] = []string{headers[i+1]}
	}
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(body)
}

// Visitors log in at the provider of the mapping, and the service hears who they are.
func TestLoginAtAProvider(t *testing.T) {
	t.Run("embedded", func(t *testing.T) { testLogin(t, embedded(t)) })
	t.Run("two forwarders", func(t *testing.T) { testLogin(t, cluster(t, 1)) })
}

func testLogin(t *testing.T, w *world) {
	p := startProvider(t)
	ann := map[string]any{"email": "Ann@Example.org", "email_verified": true}
	p.is(ann)
	rule := map[string]any{"issuer": p.url, "client_id": clientID, "client_secret": clientSecret, "domains": []string{"example.org"}, "groups": []string{"staff"}}
	echo := web(t, func(rw http.ResponseWriter, in *http.Request) {
		fmt.Fprintf(rw, "%s %q %q %q", in.RequestURI, in.Header["Tunnox-User"], in.Header["Tunnox_user"], in.Header["Cookie"])
	})
	m := w.publish(echo, map[string]any{"public_host": "sso", "access": map[string]any{"oidc": rule}})
	other := w.publish(echo, map[string]any{"public_host": "other", "access": map[string]any{"oidc": rule}})
	open := w.publish(echo, map[string]any{"public_host": "open"})
	w.answers(m.URL, 401, "for visitors who have logged in")
	w.answers(other.URL, 401, "for visitors who have logged in")
	w.answers(open.URL, 200, "")

	forged := []string{"Tunnox-User", "eve@example.org", "Tunnox_user", "eve@example.org", "Connection", "Tunnox-User"}
	visitor := w.browser()
	res, body := ask(t, visitor, m.URL+"deep/page?x=1&y=%2F", forged...)
	if want := `/deep/page?x=1&y=%2F ["ann@example.org"] [] []`; res.StatusCode != 200 || body != want {
		t.Fatalf("after the login: %s %s, want %s", res.Status, body, want)
	}
	if res, body := ask(t, visitor, m.URL+"again", append(forged, "Accept", "application/json")...); res.StatusCode != 200 || body != `/again ["ann@example.org"] [] []` {
		t.Errorf("with the cookie: %s %s", res.Status, body)
	}
	if _, body := ask(t, visitor, open.URL, forged...); body != `/ [] [] []` {
		t.Errorf("a host where nobody logs in gets %s", body)
	}
	at, err := url.Parse(m.URL)
	if err != nil {
		t.Fatal(err)
	}
	cookies := visitor.Jar.Cookies(at)
	if len(cookies) != 1 || strings.Count(cookies[0].Name, "-") != 2 {
		t.Fatalf("the visitor has the cookies %v", cookies)
	}
	for name, value := range map[string]string{
		"the cookie of another host": strings.Replace(cookies[0].String(), fmt.Sprint(m.ID), fmt.Sprint(other.ID), 1),
		"a cookie that was changed":  fmt.Sprintf("tunnox-access-%d=%sA", other.ID, strings.TrimSuffix(cookies[0].Value, "A")),
	} {
		if res, _ := ask(t, w.browser(), other.URL, "Accept", "application/json", "Cookie", value); res.StatusCode != 401 {
			t.Errorf("%s: %s", name, res.Status)
		}
	}

	for name, c := range map[string]struct {
		claims map[string]any
		status int
		says   string
	}{
		"somebody of another domain":  {map[string]any{"email": "ann@example.net", "email_verified": true}, 403, "login_denied"},
		"an address with two domains": {map[string]any{"email": "ann@example.net@example.org", "email_verified": true}, 403, "login_denied"},
		"an address nobody verified":  {map[string]any{"email": "ann@example.org"}, 403, "login_denied"},
		"a member of the group":       {map[string]any{"groups": []string{"staff"}}, 200, `["subject"]`},
		"a token of another login":    {map[string]any{"email": "ann@example.org", "email_verified": true, "nonce": "other"}, 502, "login_failed"},
		"a token for another client":  {map[string]any{"email": "ann@example.org", "email_verified": true, "aud": "other"}, 502, "login_failed"},
		"a token of another provider": {map[string]any{"email": "ann@example.org", "email_verified": true, "iss": "https://other.example.org"}, 502, "login_failed"},
		"a token that has ended":      {map[string]any{"email": "ann@example.org", "email_verified": true, "exp": 1}, 502, "login_failed"},
	} {
		p.is(c.claims)
		if res, body := ask(t, w.browser(), m.URL); res.StatusCode != c.status || !strings.Contains(body, c.says) {
			t.Errorf("%s: %s %s", name, res.Status, body)
		}
	}
	p.is(ann)

	// A login ends where it has begun, and leads nowhere else.
	begun := stays(w.browser())
	res, _ = ask(t, begun, m.URL)
	sent := res.Cookies()
	if res.StatusCode != 302 || len(sent) != 1 || !sent[0].HttpOnly || sent[0].SameSite != http.SameSiteLaxMode || res.Header.Get("Cache-Control") != "no-store" {
		t.Fatalf("the beginning of a login: %s %v", res.Status, res.Header)
	}
	res, _ = ask(t, begun, res.Header.Get("Location"))
	back := res.Header.Get("Location")
	if !strings.HasPrefix(back, m.URL+".tunnox/login?") {
		t.Fatalf("the provider leads to %s", back)
	}
	if res, body := ask(t, stays(w.browser()), back); res.StatusCode != 400 || !strings.Contains(body, "login_expired") {
		t.Errorf("a login of somebody else: %s %s", res.Status, body)
	}
	var kept map[string]string
	text, err := base64.RawURLEncoding.DecodeString(sent[0].Value)
	if err == nil {
		err = json.Unmarshal(text, &kept)
	}
	if err != nil {
		t.Fatal(err)
	}
	kept["p"] = "//evil.example.org/x"
	if text, err = json.Marshal(kept); err != nil {
		t.Fatal(err)
	}
	res, body = ask(t, stays(w.browser()), back, "Cookie", sent[0].Name+"="+base64.RawURLEncoding.EncodeToString(text))
	if res.StatusCode != 303 || !strings.HasPrefix(res.Header.Get("Location"), strings.TrimSuffix(m.URL, "/")+"/") {
		t.Errorf("with a path of another host the visitor is led to %q: %s %s", res.Header.Get("Location"), res.Status, body)
	}

	// What is shown and written has no secret, and another rule ends the cookie.
	answer, err := w.api.Call(http.MethodGet, fmt.Sprintf("/api/v1/mappings/%d", m.ID), nil)
	if err != nil || !strings.Contains(string(answer.Body), p.url) || strings.Contains(string(answer.Body), "secret") {
		t.Errorf("the API shows %s, %v", answer.Body, err)
	}
	err = filepath.WalkDir(w.entry.Dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		if err == nil && bytes.Contains(content, []byte(clientSecret)) {
			t.Errorf("%s has the client secret", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	delete(rule, "client_secret") // it stays
	rule["domains"] = []string{"example.net"}
	w.api.Do(t, http.MethodPut, fmt.Sprintf("/api/v1/mappings/%d", m.ID), map[string]any{"access": map[string]any{"oidc": rule}}, nil)
	programs.Eventually(t, limit, func() error {
		if res, _ := ask(t, visitor, m.URL, "Accept", "application/json"); res.StatusCode != 401 {
			return fmt.Errorf("after a change of the rule the cookie is answered %s", res.Status)
		}
		return nil
	})
	p.is(map[string]any{"email": "bob@example.net", "email_verified": "true"})
	if res, body := ask(t, w.browser(), m.URL); res.StatusCode != 200 || !strings.Contains(body, "bob@example.net") {
		t.Errorf("by the new rule: %s %s", res.Status, body)
	}
	rule["issuer"] = p.url + "/other"
	w.api.Refused(t, http.StatusUnprocessableEntity, "invalid", http.MethodPut, fmt.Sprintf("/api/v1/mappings/%d", m.ID), map[string]any{"access": map[string]any{"oidc": rule}})
}
