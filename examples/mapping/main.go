// Command mapping makes a user, two clients and a mapping over the REST API, with
// nothing but the standard library. It prints the auth codes with which the two
// agents are started.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"time"
)

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("mapping", flag.ContinueOnError)
	url := flags.String("api", "http://127.0.0.1:9000", "address of the API")
	listen := flags.Int("listen", 5433, "port of the source agent")
	service := flags.Int("service", 5432, "port of the service at the target agent")
	if err := flags.Parse(args); err != nil {
		return err
	}
	api := api{url: *url + "/api/v1", key: os.Getenv("TUNNOX_API_KEY")}
	var user struct {
		ID int64 `json:"user_id"`
	}
	if err := api.post(ctx, "/users", map[string]any{"username": "example", "email": "example@example.org"}, &user); err != nil {
		return err
	}
	type client struct {
		ID       int64  `json:"client_id"`
		AuthCode string `json:"auth_code"` // shown once
	}
	var source, target client
	for name, c := range map[string]*client{"laptop": &source, "datacentre": &target} {
		if err := api.post(ctx, "/clients", map[string]any{"user_id": user.ID, "client_name": name}, c); err != nil {
			return err
		}
	}
	var mapping struct {
		ID int64 `json:"mapping_id"`
	}
	err := api.post(ctx, "/mappings", map[string]any{"user_id": user.ID, "protocol": "tcp",
		"source_client_id": source.ID, "local_port": *listen,
		"target_client_id": target.ID, "target_host": "127.0.0.1", "target_port": *service}, &mapping)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]any{"mapping": mapping.ID,
		"source": source.ID, "source_auth_code": source.AuthCode,
		"target": target.ID, "target_auth_code": target.AuthCode})
}

// api is the REST API and the key to it.
type api struct{ url, key string }

// post sends one command. The Idempotency-Key makes it safe to send again: the
// command is executed once, and a repeat gets the first answer.
func (a api) post(ctx context.Context, path string, body, into any) error {
	b, err := json.Marshal(body)
	if err != nil {
		return err
	}
	in, err := http.NewRequestWithContext(ctx, http.MethodPost, a.url+path, bytes.NewReader(b))
	if err != nil {
		return err
	}
	in.Header.Set("Authorization", "Bearer "+a.key)
	in.Header.Set("Content-Type", "application/json")
	in.Header.Set("Idempotency-Key", fmt.Sprintf("example-%d-%s", time.Now().UnixNano(), path))
	out, err := http.DefaultClient.Do(in)
	if err != nil {
		return err
	}
	defer func() { _ = out.Body.Close() }()
	if out.StatusCode/100 != 2 {
		var problem struct { // RFC 9457
			Code   string `json:"code"`
			Detail string `json:"detail"`
		}
		_ = json.NewDecoder(out.Body).Decode(&problem)
		return fmt.Errorf("POST %s: %s: %s (%s)", path, out.Status, problem.Detail, problem.Code)
	}
	return json.NewDecoder(out.Body).Decode(into)
}
