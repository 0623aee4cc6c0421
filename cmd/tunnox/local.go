package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A running agent answers its owner on a unix socket in its state directory, because
// another program with its identity would fence it. If an agent was given its identity,
// the client's number is in the socket's name, so that several agents can run.

func socketPath(state string, clientID int64) string {
	name := "agent.sock"
	if clientID != 0 {
		name = "agent-" + strconv.FormatInt(clientID, 10) + ".sock"
	}
	return filepath.Join(state, name)
}

// serveLocal serves handler at path until the returned function is called. An agent
// works without a socket too, so a failure is only logged.
func serveLocal(path string, handler http.Handler, log *slog.Logger) (stop func()) {
	listener, err := listenLocal(path)
	if err != nil {
		log.Warn("commands on this machine, for example tunnox agent status, will not find this agent", "error", err)
		return func() {}
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 8 << 10, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			log.Warn("commands on this machine do not find this agent any more", "error", err)
		}
	}()
	return func() {
		_ = os.Remove(path) // the socket may be gone
		_ = server.Close()  // requests under way end with the agent
		<-done
	}
}

// listenLocal opens a socket to which only its owner can connect. The socket is made in
// a folder that nobody else can enter, and moved after its mode is set. So others can
// never connect.
func listenLocal(path string) (net.Listener, error) {
	if conn, err := net.DialTimeout("unix", path, time.Second); err == nil {
		conn.Close()
		return nil, fmt.Errorf("another agent answers at %s", path)
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	closed, err := os.MkdirTemp(dir, ".s")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(closed)
	made := filepath.Join(closed, "s")
	listener, err := net.Listen("unix", made)
	if err != nil {
		return nil, err
	}
	listener.(*net.UnixListener).SetUnlinkOnClose(false)
	err = os.Chmod(made, 0o600)
	if err == nil {
		err = os.Rename(made, path) // replaces the socket of a killed agent
	}
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	return listener, nil
}

// localFlags say which of this machine's agents a command is for.
type localFlags struct {
	surroundings
	state    string
	clientID int64
	json     bool
	timeout  time.Duration
}

// client finds the running agent.
func (f *localFlags) client() (*restClient, error) {
	state, err := stateDir(f.surroundings, f.state)
	if err != nil {
		return nil, err
	}
	f.state = state
	path, err := f.socket()
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}
	return &restClient{base: "http://agent", timeout: f.timeout, http: &http.Client{Transport: transport},
		missing: fmt.Sprintf("no agent answers at %s", path), advice: "is it running? If not, its log says why. For another agent give --state or --client-id"}, nil
}

// agentRuns tells whether an agent of a state directory answers.
func agentRuns(state string) bool {
	sockets, err := filepath.Glob(filepath.Join(state, "agent*.sock"))
	if err != nil {
		return false
	}
	return slices.ContainsFunc(sockets, func(path string) bool {
		conn, err := net.DialTimeout("unix", path, time.Second)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
}

// socket gives the socket of that agent: the named one, or the only one.
func (f *localFlags) socket() (string, error) {
	if f.clientID != 0 {
		return socketPath(f.state, f.clientID), nil
	}
	entries, err := os.ReadDir(f.state)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("look for an agent: %w", err)
	}
	var found []string
	for _, e := range entries {
		if e.Type()&fs.ModeSocket != 0 && strings.HasPrefix(e.Name(), "agent") && strings.HasSuffix(e.Name(), ".sock") {
			found = append(found, filepath.Join(f.state, e.Name()))
		}
	}
	switch len(found) {
	case 0:
		return "", codedError{exitUnreachable, fmt.Errorf("no agent runs with its state in %s\n  start one with tunnox agent --server ..., or give its --state", f.state)}
	case 1:
		return found[0], nil
	}
	return "", usageError("several agents have their state in %s: choose one with --client-id (%s)", f.state, strings.Join(found, ", "))
}
