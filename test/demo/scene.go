package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// server is the running tunnoxd as its files and its first lines describe it.
type server struct {
	api, agents string // host:port
	key         string
	keyFile     string
	join        string // the line that starts an agent
	pin         string
	child       *child
}

var joinLine = regexp.MustCompile(`tunnox agent --server \S+ --pin (sha256:\S+)`)

func startServer(ctx context.Context, started *children, dir string) (*server, error) {
	data := filepath.Join(dir, "data")
	c, err := started.start("the server", "tunnoxd", []string{"serve", "--data", data,
		"--api", "127.0.0.1:0", "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0"}, nil)
	if err != nil {
		return nil, err
	}
	s := &server{keyFile: filepath.Join(data, "api-key"), child: c}
	err = until(ctx, started.failed, func() error {
		b, err := os.ReadFile(filepath.Join(data, "addresses.json"))
		if err != nil {
			return err
		}
		var bound struct{ API, Agents string }
		if err := json.Unmarshal(b, &bound); err != nil {
			return err
		}
		join := joinLine.FindStringSubmatch(c.stdout.String())
		if join == nil {
			return errors.New("the server printed no join line")
		}
		s.api, s.agents, s.join, s.pin = bound.API, bound.Agents, join[0], join[1]
		_, err = s.call(ctx, http.MethodGet, "/ready", nil)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("start the server: %w\n%s", err, c.stderr)
	}
	key, err := os.ReadFile(s.keyFile)
	s.key = strings.TrimSpace(string(key))
	return s, err
}

// call calls the REST API and gives the body of the answer.
func (s *server) call(ctx context.Context, method, path string, body any) ([]byte, error) {
	b, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+s.api+path, bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+s.key)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode >= 300 {
		err = fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, answer)
	}
	return answer, err
}

// create posts and reads the answer into what.
func (s *server) create(ctx context.Context, path string, body map[string]any, what any) error {
	b, err := s.call(ctx, http.MethodPost, path, body)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, what)
}

// services are the services that the agents expose: they know nothing of Tunnox.
type services struct {
	web  *http.Server
	http net.Listener
	echo net.Listener
}

func startServices() (*services, error) {
	s := &services{}
	var err error
	if s.http, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return nil, err
	}
	if s.echo, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return nil, errors.Join(err, s.http.Close())
	}
	s.web = &http.Server{ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "Hello from the service behind the agent: you asked for %s.\n", r.URL.Path)
	})}
	go func() { _ = s.web.Serve(s.http) }() // ends with close
	go func() {
		for {
			conn, err := s.echo.Accept()
			if err != nil {
				return // closed
			}
			go func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn) // ends with either side
			}()
		}
	}()
	return s, nil
}

func (s *services) close() error { return errors.Join(s.web.Close(), s.echo.Close()) }

// client is one end of a mapping, with the credential of its agent.
type client struct {
	name     string
	ID       int64  `json:"client_id"`
	AuthCode string `json:"auth_code"`
}

// mapping is what the demo needs of a mapping.
type mapping struct {
	ID       int64 `json:"mapping_id"`
	listener string
}

// scene is the result of createScene: office listens for web, datacentre for echo.
type scene struct {
	office, datacentre client
	web, echo          mapping
}

func createScene(ctx context.Context, s *server, services *services) (*scene, error) {
	var user struct {
		ID int64 `json:"user_id"`
	}
	if err := s.create(ctx, "/api/v1/users", map[string]any{"username": "demo", "email": "demo@example.org"}, &user); err != nil {
		return nil, err
	}
	sc := &scene{office: client{name: "office"}, datacentre: client{name: "datacentre"}}
	for _, c := range []*client{&sc.office, &sc.datacentre} {
		if err := s.create(ctx, "/api/v1/clients", map[string]any{"user_id": user.ID, "client_name": c.name}, c); err != nil {
			return nil, err
		}
	}
	for _, m := range []struct {
		name           string
		source, target client
		service        net.Listener
		made           *mapping
	}{
		{"web", sc.office, sc.datacentre, services.http, &sc.web},
		{"echo", sc.datacentre, sc.office, services.echo, &sc.echo},
	} {
		port, err := freePort()
		if err != nil {
			return nil, err
		}
		m.made.listener = fmt.Sprintf("127.0.0.1:%d", port)
		if err := s.create(ctx, "/api/v1/mappings", map[string]any{
			"user_id": user.ID, "name": m.name, "protocol": "tcp",
			"source_client_id": m.source.ID, "local_port": port,
			"target_client_id": m.target.ID, "target_host": "127.0.0.1", "target_port": m.service.Addr().(*net.TCPAddr).Port,
		}, m.made); err != nil {
			return nil, err
		}
	}
	return sc, nil
}

// freePort gives a port that was free a moment ago.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
}

func startAgent(started *children, s *server, c client, dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	_, err := started.start("agent "+c.name, "tunnox", []string{"agent",
		"--server", s.agents, "--pin", s.pin, "--state", dir}, []string{
		fmt.Sprintf("TUNNOX_CLIENT_ID=%d", c.ID), "TUNNOX_AUTH_CODE=" + c.AuthCode,
	})
	return err
}

// until repeats try until it succeeds, a program fails, or time runs out.
func until(ctx context.Context, failed <-chan error, try func() error) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case gone := <-failed:
			return gone
		case <-ctx.Done():
			return fmt.Errorf("not within %v: %w", startTimeout, err)
		}
	}
}
