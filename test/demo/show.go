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
	"strings"
	"time"
)

// showTraffic waits for the tunnel, then sends one measured request through
// each mapping.
func showTraffic(ctx context.Context, out io.Writer, sc *scene, failed <-chan error) error {
	if err := until(ctx, failed, func() error { _, err := askWeb(ctx, sc.web); return err }); err != nil {
		return fmt.Errorf("no answer through the HTTP mapping: %w", err)
	}
	if err := until(ctx, failed, func() error { return askEcho(ctx, sc.echo) }); err != nil {
		return fmt.Errorf("no answer through the echo mapping: %w", err)
	}
	start := time.Now()
	answer, err := askWeb(ctx, sc.web)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "\n   GET http://%s/hello  ->  %s   %v, through office agent, server and datacentre agent\n",
		sc.web.listener, answer, time.Since(start).Round(time.Microsecond))
	start = time.Now()
	if err := askEcho(ctx, sc.echo); err != nil {
		return err
	}
	fmt.Fprintf(out, "   64 KiB to %s came back equal\n   %v, with connecting\n", sc.echo.listener, time.Since(start).Round(time.Microsecond))
	return nil
}

// askWeb makes a request on a connection of its own.
func askWeb(ctx context.Context, m mapping) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+m.listener+"/hello", nil)
	if err != nil {
		return "", err
	}
	req.Close = true
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && !strings.Contains(string(body), "you asked for /hello") {
		err = fmt.Errorf("got %s: %q", resp.Status, body)
	}
	return string(body), err
}

// askEcho sends 64 KiB, ends its side, and wants the same back and then the end.
func askEcho(ctx context.Context, m mapping) error {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", m.listener)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	sent := bytes.Repeat([]byte("0123456789abcdef"), 4096)
	wrote := make(chan error, 1)
	go func() {
		_, err := conn.Write(sent)
		wrote <- errors.Join(err, conn.(*net.TCPConn).CloseWrite())
	}()
	got, err := io.ReadAll(conn)
	if err := errors.Join(err, <-wrote); err != nil {
		return err
	}
	if !bytes.Equal(sent, got) {
		return fmt.Errorf("%d bytes came back of %d, or others", len(got), len(sent))
	}
	return nil
}

// showMapping prints the mapping as the API shows it and the events that made it.
func showMapping(ctx context.Context, out io.Writer, s *server, sc *scene) error {
	path := fmt.Sprintf("/api/v1/mappings/%d", sc.web.ID)
	b, err := s.call(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "\nThe mapping as the API shows it (GET %s):\n", path)
	if err := printJSON(out, b); err != nil {
		return err
	}
	b, err = s.call(ctx, http.MethodGet, path+"/history", nil)
	if err != nil {
		return err
	}
	var history struct{ Items []json.RawMessage }
	if err := json.Unmarshal(b, &history); err != nil {
		return err
	}
	if len(history.Items) == 0 {
		return errors.New("the mapping has no history")
	}
	fmt.Fprintf(out, "\nThe events that made it (GET %s/history):\n", path)
	for _, item := range history.Items {
		if err := printJSON(out, item); err != nil {
			return err
		}
	}
	return nil
}

func printJSON(out io.Writer, b []byte) error {
	var indented bytes.Buffer
	if err := json.Indent(&indented, bytes.TrimSpace(b), "   ", "  "); err != nil {
		return fmt.Errorf("%w in %q", err, b)
	}
	_, err := fmt.Fprintf(out, "   %s\n", indented.String())
	return err
}

// showNext prints lines to paste into another terminal.
func showNext(out io.Writer, bin string, s *server, sc *scene) {
	fmt.Fprintf(out, `
To go on, in another terminal, from here:

   export TUNNOX_API=http://%[1]s TUNNOX_API_KEY=$(cat %[2]s)
   curl http://%[3]s/hello
   %[5]s/tunnox client list
   %[5]s/tunnox mapping list
   %[5]s/tunnox events
   %[5]s/%[4]s --state /tmp/third-agent

   API docs:  http://%[1]s/docs
   API key:   %[2]s
   join line: %[4]s
`, s.api, s.keyFile, sc.web.listener, s.join, bin)
}
