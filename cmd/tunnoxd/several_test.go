package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/test/services"
)

// startControl starts a control plane with an empty data directory.
func startControl(t *testing.T, dir string, environ []string, postgres, redis string) (*running, error) {
	t.Helper()
	return startWith(t, dir, environ, "control", "--api", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--state", "127.0.0.1:0",
		"--postgres", postgres, "--redis", redis)
}

// metric gives the value of a metric with labels, as it stands in the text.
func (r *running) metric(t *testing.T, name string) float64 {
	t.Helper()
	_, body := get(t, "http://"+r.addresses["metrics"]+"/metrics")
	found := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(name) + ` (\S+)$`).FindStringSubmatch(body)
	if found == nil {
		return -1
	}
	v, err := strconv.ParseFloat(found[1], 64)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// call makes a request to the API and gives its status and body.
func (r *running) call(t *testing.T, key, method, path, body string, header ...string) (status int, answer string, sent http.Header) {
	t.Helper()
	defer http.DefaultClient.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+r.addresses["api"]+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+key)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b), resp.Header
}

// Any number of control planes work over one Postgres and one Redis: they have one
// authority and one join token, all answer, one relays and projects, and when that
// one ends another does.
func TestSeveralControlPlanes(t *testing.T) {
	postgres, redis := services.Postgres(t), services.Redis(t)
	dir := t.TempDir()
	one, err := startControl(t, dir, nil, postgres, redis)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "api-key"))
	if err != nil {
		t.Fatal(err)
	}
	key := strings.TrimSpace(string(b))

	// Without the API key it is told what to bring, and makes none of its own.
	empty := t.TempDir()
	if _, err := startControl(t, empty, nil, postgres, redis); err == nil || !strings.Contains(err.Error(), "copy api-key") {
		t.Errorf("without the key: %v", err)
	}
	if _, err := os.Stat(filepath.Join(empty, "api-key")); err == nil {
		t.Error("it made an API key of its own")
	}
	wrong := []string{"TUNNOXD_API_KEY=" + strongKey('w')}
	if _, err := startControl(t, t.TempDir(), wrong, postgres, redis); err == nil || !strings.Contains(err.Error(), "same API key") || strings.Contains(err.Error(), "www") {
		t.Errorf("with another key: %v", err)
	}

	twoDir := t.TempDir()
	two, err := startControl(t, twoDir, []string{"TUNNOXD_API_KEY=" + key}, postgres, redis)
	if err != nil {
		t.Fatal(err)
	}
	_, pinOfOne := one.said(t)
	if _, pin := two.said(t); pin != pinOfOne {
		t.Errorf("two authorities: %s and %s", pinOfOne, pin)
	}
	var tokens [2]string
	for i, d := range []string{dir, twoDir} {
		b, err := os.ReadFile(filepath.Join(d, "join-token"))
		if err != nil {
			t.Fatal(err)
		}
		tokens[i] = string(b)
	}
	if tokens[0] != tokens[1] {
		t.Error("two join tokens")
	}
	for _, lease := range []string{leaseRelay, leaseProjector} {
		name := fmt.Sprintf(`tunnox_lease_held{lease="%s"}`, lease)
		if a, b := one.metric(t, name), two.metric(t, name); a != 1 || b != 0 {
			t.Errorf("%s is %v and %v", name, a, b)
		}
	}
	// Written at the one that only stands by, shown by both.
	write := func(at *running, name string) (position string) {
		t.Helper()
		status, body, _ := at.call(t, key, http.MethodPost, "/api/v1/users", fmt.Sprintf(`{"username":%q,"email":"%s@example.org"}`, name, name))
		if status != http.StatusCreated {
			t.Fatalf("create %s: %d %s", name, status, body)
		}
		var user struct {
			ID int64 `json:"user_id"`
		}
		if err := json.Unmarshal([]byte(body), &user); err != nil {
			t.Fatal(err)
		}
		return strconv.FormatInt(user.ID, 10)
	}
	shows := func(at *running, user string) error {
		status, body, _ := at.call(t, key, http.MethodGet, "/api/v1/users/"+user, "")
		if status != http.StatusOK {
			return fmt.Errorf("user %s: %d %s", user, status, body)
		}
		return nil
	}
	eventually := func(what string, check func() error) time.Duration {
		t.Helper()
		began := time.Now()
		for {
			err := check()
			if err == nil {
				return time.Since(began)
			}
			if time.Since(began) > 20*time.Second {
				t.Fatalf("%s: %v", what, err)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	ann := write(two, "ann")
	for _, at := range []*running{one, two} {
		eventually("shown", func() error { return shows(at, ann) })
	}
	var took []time.Duration
	for i := range 20 {
		began := time.Now()
		status, body, sent := two.call(t, key, http.MethodPut, "/api/v1/users/"+ann, fmt.Sprintf(`{"email":"ann%d@example.org"}`, i))
		if status != http.StatusOK {
			t.Fatalf("change: %d %s", status, body)
		}
		if status, body, _ := one.call(t, key, http.MethodGet, "/api/v1/users", "", "Min-Position", sent.Get("X-Position")); status != http.StatusOK {
			t.Fatalf("list: %d %s", status, body)
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	t.Logf("from a command at the one that stands by to the rows that the other writes: p50 %v, max %v", took[len(took)/2], took[len(took)-1])
	if err := one.stop(); err != nil {
		t.Fatal(err)
	}
	bob := write(two, "bob")
	t.Logf("a command is shown %v after the projector's owner ended", eventually("shown by the one that stood by", func() error { return shows(two, bob) }))
	if held := two.metric(t, `tunnox_lease_held{lease="projector"}`); held != 1 {
		t.Errorf("the lease is held: %v", held)
	}
}

func TestJoinTokenIsPrintedAndRotated(t *testing.T) {
	postgres, redis := services.Postgres(t), services.Redis(t)
	command := func(environ []string, args ...string) (string, error) {
		var out bytes.Buffer
		err := run(context.Background(), args, environ, &out, io.Discard)
		return strings.TrimSpace(out.String()), err
	}
	key := []string{"TUNNOXD_API_KEY=" + strongKey('k')}
	nowhere := t.TempDir()
	dir := t.TempDir()
	if _, err := startControl(t, dir, key, postgres, redis); err != nil {
		t.Fatal(err)
	}
	first, err := command(nil, "join-token", "--data", dir)
	if err != nil || !strings.HasPrefix(first, "tnxj_") {
		t.Errorf("%q, %v", first, err)
	}
	if again, err := command(key, "join-token", "--postgres", postgres, "--data", nowhere); err != nil || again != first {
		t.Errorf("over Postgres: %q, %v", again, err)
	}
	if out, err := command(nil, "join-token", "--postgres", postgres, "--data", nowhere); err == nil || !strings.Contains(err.Error(), "TUNNOXD_API_KEY") {
		t.Errorf("without a key: %q, %v", out, err)
	}
	if out, err := command([]string{"TUNNOXD_API_KEY=" + strongKey('o')}, "join-token", "--postgres", postgres, "--data", nowhere); err == nil || !strings.Contains(err.Error(), "same API key") {
		t.Errorf("with another key: %q, %v", out, err)
	}
	next, err := command(key, "rotate-join-token", "--postgres", postgres, "--data", nowhere)
	if err != nil || next == first {
		t.Errorf("rotated: %v", err)
	}
	if now, err := command(key, "join-token", "--postgres", postgres, "--data", nowhere); err != nil || now != next {
		t.Errorf("after it: %q, %v", now, err)
	}
	// The API key changes, and the secrets with it.
	other := "TUNNOXD_API_KEY=" + strongKey('n')
	if now, err := command([]string{other, "TUNNOXD_API_KEY_BEFORE=" + strongKey('k')}, "join-token", "--postgres", postgres, "--data", nowhere); err != nil || now != next {
		t.Errorf("with the next key: %q, %v", now, err)
	}
	if now, err := command([]string{other}, "join-token", "--postgres", postgres, "--data", nowhere); err != nil || now != next {
		t.Errorf("with the next key alone: %q, %v", now, err)
	}
}

// A server without --state over the database of a cluster has the cluster's API
// key, or says what to do; with it, it has the cluster's other keys too.
func TestServeBesideACluster(t *testing.T) {
	postgres, redis := services.Postgres(t), services.Redis(t)
	dir, beside := t.TempDir(), t.TempDir()
	one, err := startControl(t, dir, nil, postgres, redis)
	if err != nil {
		t.Fatal(err)
	}
	defer one.stop()
	serve := func(environ ...string) (*running, error) {
		return startWith(t, beside, environ, serveArgs("--postgres", postgres, "--redis", redis)...)
	}
	if _, err := serve(); err == nil || !strings.Contains(err.Error(), "copy api-key") {
		t.Errorf("without a key: %v", err)
	}
	if _, err := serve("TUNNOXD_API_KEY=" + strongKey('k')); err == nil || !strings.Contains(err.Error(), "TUNNOXD_API_KEY is another") {
		t.Errorf("with another key: %v", err)
	}
	key, err := os.ReadFile(filepath.Join(dir, "api-key"))
	if err != nil {
		t.Fatal(err)
	}
	two, err := serve("TUNNOXD_API_KEY=" + strings.TrimSpace(string(key)))
	if err != nil {
		t.Fatal(err)
	}
	if err := two.stop(); err != nil {
		t.Error(err)
	}
	for _, name := range []string{auditKeyFile, jwtKeyFile} {
		theirs, err := os.ReadFile(filepath.Join(dir, name))
		ours, ourErr := os.ReadFile(filepath.Join(beside, name))
		if err != nil || ourErr != nil || !bytes.Equal(ours, theirs) {
			t.Errorf("%s is another (%v, %v)", name, err, ourErr)
		}
	}
}
