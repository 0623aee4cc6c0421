package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tunnox-net/tunnox/checkup"
	"github.com/tunnox-net/tunnox/test/services"
)

// examined gives what doctor finds, by check.
func examined(t *testing.T, args ...string) map[string]checkup.Finding {
	t.Helper()
	var out, errs bytes.Buffer
	all := append([]string{"doctor", "--json", "--api", "127.0.0.1:0", "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--public-ports", ""}, args...)
	err := run(t.Context(), all, nil, &out, &errs)
	var report struct {
		OK     bool
		Checks []checkup.Finding
	}
	if jsonErr := json.Unmarshal(out.Bytes(), &report); jsonErr != nil {
		t.Fatalf("%v, %v: %s", err, jsonErr, &out)
	}
	found, failures := map[string]checkup.Finding{}, 0
	for _, f := range report.Checks {
		found[f.Check] = f
		if f.State == checkup.Failed {
			failures++
		}
		if f.State != checkup.OK && f.Do == "" {
			t.Errorf("%+v does not say what to do", f)
		}
	}
	if report.OK != (failures == 0) || report.OK != (err == nil) {
		t.Errorf("%d failures, ok %v, %v", failures, report.OK, err)
	}
	return found
}

// wants checks the state of checks, and what they say.
func wants(t *testing.T, found map[string]checkup.Finding, check string, state checkup.State, says string) {
	t.Helper()
	if f, ok := found[check]; !ok || f.State != state || !strings.Contains(f.Detail, says) {
		t.Errorf("%s: %+v, want %s and %q", check, f, state, says)
	}
}

func TestDoctorLooksAtPostgres(t *testing.T) {
	database, data := services.Postgres(t), filepath.Join(t.TempDir(), "data")
	redis := services.Redis(t)
	execute := func(statement string) {
		t.Helper()
		conn, err := pgx.Connect(t.Context(), database)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(context.Background())
		if _, err := conn.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	examine := func() map[string]checkup.Finding {
		return examined(t, "--data", data, "--postgres", database, "--redis", redis)
	}
	found := examine()
	for check, says := range map[string]string{"postgres": "version 1", "postgres writes": "taken", "postgres clock": "differs by", "schema": "the database is empty",
		"redis": "takes writes", "redis policy": "noeviction", "data": "does not exist"} {
		wants(t, found, check, checkup.OK, says)
	}
	if err := run(t.Context(), []string{"migrate", "--postgres", database}, nil, &bytes.Buffer{}, &bytes.Buffer{}); err != nil {
		t.Fatal(err)
	}
	wants(t, examine(), "schema", checkup.OK, "the newest")
	execute(`UPDATE tunnox_schema SET version_id = version_id + 1000 WHERE version_id = (SELECT max(version_id) FROM tunnox_schema)`)
	wants(t, examine(), "schema", checkup.Failed, "this program knows")

	name := strings.TrimPrefix(must(url.Parse(database)).Path, "/")
	execute(`ALTER DATABASE "` + name + `" SET default_transaction_read_only = on`)
	wants(t, examine(), "postgres writes", checkup.Failed, "read-only")

	away := must(url.Parse(database))
	away.User, away.Path = url.UserPassword("nobody-here", "secret-word"), "/nowhere"
	found = examined(t, "--data", data, "--postgres", away.String(), "--redis", redis)
	wants(t, found, "postgres", checkup.Failed, "")
	if strings.Contains(found["postgres"].Detail, "secret-word") {
		t.Errorf("the password is shown: %s", found["postgres"].Detail)
	}
}

func TestDoctorLooksAtRedis(t *testing.T) {
	server := services.StartRedis(t)
	data, database := filepath.Join(t.TempDir(), "data"), services.Postgres(t)
	examine := func() map[string]checkup.Finding {
		return examined(t, "--data", data, "--redis", server.URL(), "--postgres", database)
	}
	client := redisClient(t, server.URL())
	set := func(name, value string) {
		t.Helper()
		if err := client.ConfigSet(t.Context(), name, value).Err(); err != nil {
			t.Fatal(err)
		}
	}
	set("maxmemory-policy", "allkeys-lru")
	wants(t, examine(), "redis policy", checkup.Note, "allkeys-lru")
	set("maxmemory", "100mb")
	wants(t, examine(), "redis policy", checkup.Failed, "noeviction")
	set("maxmemory-policy", "noeviction")
	wants(t, examine(), "redis policy", checkup.OK, "noeviction")
	set("maxmemory", "1")
	wants(t, examine(), "redis", checkup.Failed, "OOM")
	server.Kill(t)
	wants(t, examine(), "redis", checkup.Failed, "refused")
}

// certificateFor writes a certificate and its key.
func certificateFor(t *testing.T, from, to time.Time, names ...string) (certificate, key string) {
	t.Helper()
	private := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	der := must(x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: from, NotAfter: to, DNSNames: names},
		&x509.Certificate{SerialNumber: big.NewInt(1)}, private.Public(), private))
	dir := t.TempDir()
	certificate, key = filepath.Join(dir, "crt"), filepath.Join(dir, "key")
	for file, block := range map[string]*pem.Block{certificate: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: must(x509.MarshalPKCS8PrivateKey(private))}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certificate, key
}

func TestDoctorLooksAtCertificatesAndNames(t *testing.T) {
	now, day := time.Now(), 24*time.Hour
	for _, tt := range []struct {
		name     string
		from, to time.Time
		host     string
		state    checkup.State
		says     string
	}{
		{"good", now.Add(-day), now.Add(90 * day), "*.t.invalid", checkup.OK, "for *.t.invalid, until"},
		{"soon", now.Add(-day), now.Add(5 * day), "*.t.invalid", checkup.Note, "ends in 4 days"},
		{"ended", now.Add(-2 * day), now.Add(-day), "*.t.invalid", checkup.Failed, "ended 24h0m0s ago"},
		{"early", now.Add(day), now.Add(2 * day), "*.t.invalid", checkup.Failed, "begins on"},
		{"other", now.Add(-day), now.Add(90 * day), "t.invalid", checkup.Note, "not for *.t.invalid"},
	} {
		certificate, key := certificateFor(t, tt.from, tt.to, tt.host)
		found := examined(t, "--data", filepath.Join(t.TempDir(), "data"), "--https", "127.0.0.1:0", "--base-domain", "t.invalid", "--certificate", certificate, "--certificate-key", key)
		wants(t, found, "certificate "+certificate, tt.state, tt.says)
		wants(t, found, "dns *.t.invalid", checkup.Failed, ".t.invalid") // RFC 6761: it never resolves
		wants(t, found, "dns t.invalid", checkup.Note, "t.invalid")
	}
	found := examined(t, "--data", t.TempDir(), "--https", "127.0.0.1:0", "--base-domain", "localhost", "--certificate", "/nowhere/crt", "--certificate-key", "/nowhere/key")
	wants(t, found, "certificate /nowhere/crt", checkup.Failed, "no such file")
	wants(t, found, "dns localhost", checkup.OK, "leads to")
}

func must[V any](value V, err error) V {
	if err != nil {
		panic(err)
	}
	return value
}
