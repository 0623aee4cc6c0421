package programs

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"testing"
	"time"
)

// API calls the REST API of a server. It may be used by several goroutines.
type API struct {
	URL string // without a trailing slash
	Key string

	t      testing.TB
	client *http.Client
}

// Answer is an answer of the API.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
}

// Problem is an error answer (RFC 9457).
type Problem struct {
	Status int
	Code   string
	Detail string
	Errors []Fault
}

// Fault is one fault of a request, and its place.
type Fault struct{ Location, Message string }

// NewAPI gives a caller with connections of its own, which end with the test.
func NewAPI(t testing.TB, url, key string) *API {
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	t.Cleanup(transport.CloseIdleConnections)
	return &API{URL: url, Key: key, t: t, client: &http.Client{Transport: transport, Timeout: 30 * time.Second}}
}

// Call makes one request. A body of bytes is sent unchanged, anything else as JSON.
// Headers are name and value in turn.
func (a *API) Call(method, path string, body any, headers ...string) (Answer, error) {
	var reader io.Reader
	switch b := body.(type) {
	case nil:
	case []byte:
		reader = bytes.NewReader(b)
	default:
		text, err := json.Marshal(b)
		if err != nil {
			return Answer{}, err
		}
		reader = bytes.NewReader(text)
	}
	req, err := http.NewRequest(method, a.URL+path, reader)
	if err != nil {
		return Answer{}, err
	}
	req.Header.Set("Authorization", "Bearer "+a.Key)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	for pair := range slices.Chunk(headers, 2) {
		req.Header.Set(pair[0], pair[1])
	}
	resp, err := a.client.Do(req)
	if err != nil {
		return Answer{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	return Answer{Status: resp.StatusCode, Header: resp.Header, Body: text}, err
}

// Do makes a request that must succeed and reads its answer into into (nil = not).
func (a *API) Do(t testing.TB, method, path string, body, into any, headers ...string) Answer {
	t.Helper()
	answer, err := a.Call(method, path, body, headers...)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	if answer.Status/100 != 2 {
		t.Fatalf("%s %s: %d %s", method, path, answer.Status, answer.Body)
	}
	if into != nil {
		answer.Read(t, into)
	}
	return answer
}

// Refused makes a request that must be refused with the status and code.
func (a *API) Refused(t testing.TB, status int, code, method, path string, body any, headers ...string) Problem {
	t.Helper()
	return a.RefusedAs(t, code, status, code, method, path, body, headers...)
}

// RefusedAs is Refused with a name for the request, for tables.
func (a *API) RefusedAs(t testing.TB, what string, status int, code, method, path string, body any, headers ...string) Problem {
	t.Helper()
	answer, err := a.Call(method, path, body, headers...)
	if err != nil {
		t.Errorf("%s: %s %s: %v", what, method, path, err)
		return Problem{}
	}
	p := answer.Problem()
	if answer.Status != status || p.Code != code || p.Status != status || p.Detail == "" {
		t.Errorf("%s: %s %s: %d %.500s, want %d with code %s and a sentence", what, method, path, answer.Status, answer.Body, status, code)
	}
	return p
}

// Problem reads an error answer; it is empty for any other answer.
func (r Answer) Problem() Problem {
	var p Problem
	if json.Unmarshal(r.Body, &p) != nil {
		return Problem{}
	}
	return p
}

// Read decodes the answer's body.
func (r Answer) Read(t testing.TB, into any) {
	t.Helper()
	if err := json.Unmarshal(r.Body, into); err != nil {
		t.Fatalf("answer %.500s: %v", r.Body, err)
	}
}

// User is a user as the API shows it.
type User struct {
	ID       int64  `json:"user_id"`
	Username string `json:"username"`
}

// Client is a client as the API shows it; AuthCode is shown only once.
type Client struct {
	ID       int64  `json:"client_id"`
	UserID   int64  `json:"user_id"`
	Type     string `json:"client_type"`
	Name     string `json:"client_name"`
	AuthCode string `json:"auth_code,omitempty"`
	Status   string `json:"status"`
	NodeID   string `json:"node_id"`
}

// Mapping is a mapping as the API shows and accepts it.
type Mapping struct {
	ID         int64  `json:"mapping_id,omitempty"`
	UserID     int64  `json:"user_id"`
	Name       string `json:"name,omitempty"`
	Protocol   string `json:"protocol"`
	Source     int64  `json:"source_client_id"`
	Target     int64  `json:"target_client_id"`
	LocalHost  string `json:"local_host,omitempty"`
	LocalPort  int    `json:"local_port"`
	TargetHost string `json:"target_host"`
	TargetPort int    `json:"target_port"`
	Encryption string `json:"encryption,omitempty"`
	Status     string `json:"status,omitempty"`
}

// CreateUser makes a user with a name and an address of that name.
func (a *API) CreateUser(t testing.TB, name string) User {
	t.Helper()
	var u User
	a.Do(t, http.MethodPost, "/api/v1/users", map[string]any{"username": name, "email": name + "@example.org"}, &u)
	return u
}

// CreateClient makes a client of a user.
func (a *API) CreateClient(t testing.TB, user int64, name string) Client {
	t.Helper()
	var c Client
	a.Do(t, http.MethodPost, "/api/v1/clients", map[string]any{"user_id": user, "client_name": name}, &c)
	if c.ID == 0 || c.AuthCode == "" {
		t.Fatalf("created client without id or auth code: %+v", c)
	}
	return c
}

// CreateMapping makes a mapping.
func (a *API) CreateMapping(t testing.TB, m Mapping) Mapping {
	t.Helper()
	var made Mapping
	a.Do(t, http.MethodPost, "/api/v1/mappings", m, &made)
	return made
}

// WaitOnline waits until the API shows the client as online.
func (a *API) WaitOnline(t testing.TB, clientID int64) {
	t.Helper()
	Eventually(t, 15*time.Second, func() error {
		var c Client
		answer, err := a.Call(http.MethodGet, fmt.Sprintf("/api/v1/clients/%d", clientID), nil)
		if err != nil {
			return err
		}
		if err := json.Unmarshal(answer.Body, &c); err != nil || c.Status != "online" {
			return fmt.Errorf("client %d is not online: %s", clientID, answer.Body)
		}
		return nil
	})
}

// All reads a list to its end, page by page, into a slice of its items.
func All[T any](t testing.TB, a *API, path string) []T {
	t.Helper()
	all, err := List[T](a, path)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// List is All for a caller that handles failures.
func List[T any](a *API, path string) ([]T, error) {
	var all []T
	next := ""
	for {
		answer, err := a.Call(http.MethodGet, path+next, nil)
		if err == nil && answer.Status != http.StatusOK {
			err = fmt.Errorf("%d %s", answer.Status, answer.Body)
		}
		var page struct {
			Items []T             `json:"items"`
			Next  json.RawMessage `json:"next"`
		}
		if err == nil {
			err = json.Unmarshal(answer.Body, &page)
		}
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", path+next, err)
		}
		all = append(all, page.Items...)
		token := string(bytes.Trim(page.Next, `"`))
		if token == "" || token == "null" || token == "0" || len(page.Items) == 0 {
			return all, nil
		}
		next = fmt.Sprintf("%safter=%s", map[bool]string{true: "&", false: "?"}[bytes.ContainsRune([]byte(path), '?')], token)
	}
}
