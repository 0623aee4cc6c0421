package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// apiFlags are the flags of every command that calls the REST API.
type apiFlags struct {
	surroundings
	url     string
	ca      string
	keyFile string
	json    bool
	timeout time.Duration
	state   string // the state directory that a command was given; "" = that of the context
}

func (f *apiFlags) declare(flags *pflag.FlagSet) {
	flags.StringVar(&f.url, "api", "", "`URL` of the REST API (environment: TUNNOX_API; default: that of the server in use, or http://127.0.0.1:9000)")
	flags.StringVar(&f.ca, "api-ca", "", "`file` with certificates in PEM that vouch for the API over https, beside those of the system (environment: TUNNOX_API_CA; default: what the context has)")
	flags.StringVar(&f.keyFile, "api-key-file", "", "`file` with the API key (environment: TUNNOX_API_KEY, the key itself)")
	flags.BoolVar(&f.json, "json", false, "print the API's JSON")
	flags.DurationVar(&f.timeout, "timeout", 30*time.Second, "how long to wait for an answer")
}

// restClient calls the REST API of one server.
type restClient struct {
	base    string // without a slash at the end
	place   place  // where its login is kept
	key     string
	timeout time.Duration
	http    *http.Client
	asking

	cmd   *cobra.Command     // the command that calls
	found map[string][]named // by kind: what people have names for

	keyFrom string                             // where the key comes from, for people
	kept    bool                               // the key is the token of a stored login
	keptKey bool                               // that is an API key
	unused  string                             // what to say of a key that is not sent there
	confirm func(context.Context, *plan) error // nil: changes need no confirmation

	missing, advice string // what to print when nobody answers; "" = the text for the REST API
}

// client reads the flags and the environment.
func (f *apiFlags) client() (*restClient, error) {
	if f.timeout <= 0 {
		return nil, usageError("--timeout %v: must be more than 0, for example 30s", f.timeout)
	}
	to, err := f.destination()
	if err != nil {
		return nil, err
	}
	if u, err := url.Parse(to.base); err == nil && u.Scheme == "http" && !here(u.Hostname()) {
		fmt.Fprintf(f.stderr, "tunnox: warning: the API key goes to %s without encryption; use https, or a tunnel to the server\n", u.Host)
	}
	c := &restClient{base: to.base, place: to.place, unused: f.unusedKey(to), timeout: f.timeout}
	if c.http, err = f.dialled(to); err != nil {
		return nil, err
	}
	if to.environ {
		c.key, c.keyFrom = f.variable("TUNNOX_API_KEY"), "TUNNOX_API_KEY"
	}
	if f.keyFile != "" {
		b, err := os.ReadFile(f.keyFile)
		if err != nil {
			return nil, fmt.Errorf("read API key: %w", err)
		}
		c.key, c.keyFrom = strings.TrimSpace(string(b)), f.keyFile
		if c.key == "" {
			return nil, fmt.Errorf("read API key: %s is empty", f.keyFile)
		}
	}
	return c, nil
}

// problem is an error answer of the API (RFC 9457).
type problem struct {
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	Code   string `json:"code"`
	Errors []struct {
		Location string `json:"location"`
		Message  string `json:"message"`
	} `json:"errors"`
}

// Error gives the sentence, the code for scripts, and every fault with its place.
func (p *problem) Error() string {
	text := p.Detail
	if text == "" {
		text = p.Title
	}
	if text == "" {
		text = http.StatusText(p.Status)
	}
	text = oneLine(text)
	if p.Code != "" {
		text += " [" + oneLine(p.Code) + "]"
	}
	for _, e := range p.Errors {
		if e.Message == p.Detail || p.Status == http.StatusUnauthorized {
			continue // the sentence has said it; or it is a header, which people do not write
		}
		place := strings.TrimPrefix(e.Location, "body.")
		text += "\n  " + oneLine(place+": "+e.Message)
		if place == "user_id" && e.Message == "is required" {
			text += "; give the user with --user"
		}
	}
	return text
}

// call sends a request, with body as JSON unless it is nil, and gives the body of the
// answer. It does not repeat a request: the caller decides about that.
func (c *restClient) call(ctx context.Context, method, path string, body any) ([]byte, error) {
	if method != http.MethodGet && c.confirm != nil && !c.dryRun {
		first := *c
		first.dryRun = true
		_, err := first.call(ctx, method, path, body)
		p, ok := errors.AsType[*plan](err)
		if !ok {
			return nil, err
		}
		if err := c.confirm(ctx, p); err != nil {
			return nil, err
		}
	}
	b, resp, err := c.send(ctx, method, path, body)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode >= http.StatusMultipleChoices {
		return nil, c.answerError(resp, b)
	}
	if method != http.MethodGet && c.dryRun {
		if kind, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type")); err != nil || kind != planType {
			return nil, errors.New("the server did not answer as for a dry run: it may have executed the command")
		}
		return nil, &plan{b}
	}
	return b, nil
}

// send is call for callers that check the status themselves. The body of the response
// has been read.
func (c *restClient) send(ctx context.Context, method, path string, body any) ([]byte, *http.Response, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	var content io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, nil, err
		}
		content = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+c.path(method, path), content)
	if err != nil {
		return nil, nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.do(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, nil, c.unreachable(err)
	}
	return b, resp, nil
}

// do sends a request with the headers that all requests have.
func (c *restClient) do(req *http.Request) (*http.Response, error) {
	if c.key != "" {
		req.Header.Set("Authorization", "Bearer "+c.key)
	}
	req.Header.Set("User-Agent", "tunnox/"+shortVersion())
	c.header(req)
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreachable(err)
	}
	return resp, nil
}

func (c *restClient) unreachable(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err // the method and the URL are in our own sentence
	}
	if strings.Contains(err.Error(), `malformed HTTP response "\x15\x03`) { // an alert of TLS
		return codedError{exitUnreachable, fmt.Errorf("the server at %s speaks TLS and not HTTP: if this is the port for agents, give the address of the API with --api or TUNNOX_API", c.base)}
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return codedError{exitUnreachable, fmt.Errorf("the API at %s shows a certificate that nothing vouches for: %w\n  if it is the server's own, name a file with it: --api-ca FILE; tunnox login keeps it", c.base, err)}
	}
	if c.missing != "" {
		return codedError{exitUnreachable, fmt.Errorf("%s: %w\n  %s", c.missing, err, c.advice)}
	}
	return codedError{exitUnreachable, fmt.Errorf("cannot reach the API at %s: %w\n  is tunnoxd running there? Give another address with --api or TUNNOX_API", c.base, err)}
}

// answerError gives the API's error, and advice for a key that the API does not accept.
// The advice for a missing key differs from that for a wrong one.
func (c *restClient) answerError(resp *http.Response, body []byte) error {
	err := answerError(resp, body)
	switch {
	case resp.StatusCode != http.StatusUnauthorized || c.missing != "" || strings.HasPrefix(resp.Request.URL.Path, "/api/v1/auth/login"):
		return err
	case c.key == "":
		return codedError{exitRefused, fmt.Errorf("no API key was given, and %s needs one [unauthorized]\n  log in with tunnox login, or set TUNNOX_API_KEY or --api-key-file; the operator's key is in the file api-key of the server's data directory%s", c.base, c.unused)}
	case c.kept:
		return codedError{exitRefused, fmt.Errorf("%s does not accept %s any more [unauthorized]\n  log in again with tunnox login", c.base, c.keyFrom)}
	}
	return codedError{exitRefused, fmt.Errorf("%s does not accept the API key of %s: it belongs to another server, was revoked, or has expired [unauthorized]", c.base, c.keyFrom)}
}

func answerError(resp *http.Response, body []byte) error {
	p := &problem{}
	kind, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil || kind != "application/problem+json" || json.Unmarshal(body, p) != nil {
		p = &problem{Detail: fmt.Sprintf("the server answered %s, not in the API's form; is --api the address of the REST API?", resp.Status)}
	}
	p.Status = resp.StatusCode
	if resp.StatusCode >= 500 {
		return p
	}
	return codedError{exitRefused, p}
}

// page is the form of every list of the API.
type page struct {
	Items []json.RawMessage `json:"items"`
	Next  *int64            `json:"next"` // where the next page begins, nil = this was the last page
}

// pageSize is the largest page of the API.
const pageSize = 500

// list reads a list's pages after after, to its end or to limit items.
func (c *restClient) list(ctx context.Context, path string, after int64, limit int) (page, error) {
	all := page{Items: []json.RawMessage{}}
	for {
		size := pageSize
		if limit > 0 {
			size = min(size, limit-len(all.Items))
		}
		b, err := c.call(ctx, http.MethodGet, withQuery(path, fmt.Sprintf("after=%d&limit=%d", after, size)), nil)
		if err != nil {
			return all, err
		}
		var p page
		if err := json.Unmarshal(b, &p); err != nil {
			return all, fmt.Errorf("read list %s: %w", path, err)
		}
		all.Items, all.Next = append(all.Items, p.Items...), p.Next
		if p.Next == nil || limit > 0 && len(all.Items) >= limit {
			return all, nil
		}
		after = *p.Next
	}
}

// here tells whether a host is this machine, to which nothing is sent over a network.
func here(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}
