package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// held gives a context that no agent uses, and keeps it so until release is called.
func (s surroundings) heldContext(name string) (p place, release func(), err error) {
	if p, err = s.contextNamed(name, "tunnox use"); err != nil {
		return p, nil, err
	}
	base := defaultStateDir(s)
	if p.dir != base && filepath.Dir(p.dir) != filepath.Join(base, contextsDir) {
		return p, nil, usageError("the context %s is with its service, in %s: run tunnox service uninstall --context %[1]s first", name, p.dir)
	}
	if agentRuns(p.dir) { // with another id than that of the directory, it has another lock
		return p, nil, fmt.Errorf("an agent or a tunnel of the context %s runs: end it first", name)
	}
	release, err = lockState(p.dir, 0, slog.New(slog.DiscardHandler))
	if errors.Is(err, errHeld) {
		return p, nil, fmt.Errorf("an agent or a tunnel of the context %s runs: end it first", name)
	}
	return p, release, err
}

// chosenName is what tunnox use wrote, "" when it has written nothing.
func (s surroundings) chosenName() string {
	b, err := os.ReadFile(filepath.Join(defaultStateDir(s), chosenFile))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// renameContext gives a context another name. That of the first one stands in its
// settings; others are directories.
func (s surroundings) renameContext(name, to string) error {
	if !contextName.MatchString(to) {
		return usageError("the name of a context %q must have 1 to 63 of a-z, 0-9, - . and _, and begin with a letter or a digit", to)
	}
	if name == to {
		return nil
	}
	if slices.Contains(s.contextNames(), to) {
		return codedError{exitTaken, fmt.Errorf("there is a context %s already: tunnox use lists all", to)}
	}
	p, release, err := s.heldContext(name)
	if err != nil {
		return err
	}
	defer release()
	if p.dir == defaultStateDir(s) {
		err = p.change(func(c *contextSettings) { c.Name = to })
	} else {
		target := filepath.Join(filepath.Dir(p.dir), to)
		err = os.Remove(target) // an empty one may have been left by a join that failed
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		if err == nil {
			err = os.Rename(p.dir, target)
		}
	}
	if err != nil {
		return fmt.Errorf("rename the context: %w", err)
	}
	if s.chosenName() == name {
		if err := s.choose(place{name: to}); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintf(s.stdout, "the context %s is called %s now\n", name, to)
	return err
}

// removeContext forgets a context.
func (s surroundings) removeContext(ctx context.Context, name string, sure bool) error {
	p, release, err := s.heldContext(name)
	if err != nil {
		return err
	}
	defer release()
	k, err := p.read()
	if err != nil {
		k = known{} // it is removed all the same: what is wrong with it may be why
	}
	client := ""
	if k.id.ClientID != 0 {
		client = fmt.Sprintf("client %d at %s", k.id.ClientID, oneLine(strings.Join(k.joined.Servers, ", ")))
	}
	if !sure && s.atTerminal() {
		what := "The context " + name + " is forgotten"
		if client != "" {
			what = "This machine can then not be " + client + " any more"
		}
		answer, err := s.askLine(ctx, what+". Go on? [y/N] ")
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("%w: %w", errUnsure, err)
		}
		if answer = strings.ToLower(strings.TrimSpace(answer)); answer != "y" && answer != "yes" {
			return errUnsure
		}
	}
	if p.dir == defaultStateDir(s) { // others are below it
		err = removeFirst(p.dir)
	} else {
		err = os.RemoveAll(p.dir)
	}
	if err == nil && s.chosenName() == name {
		err = os.Remove(filepath.Join(defaultStateDir(s), chosenFile))
	}
	if err != nil {
		return fmt.Errorf("remove the context: %w", err)
	}
	fmt.Fprintf(s.stdout, "the context %s is forgotten\n", name)
	if client != "" {
		fmt.Fprintf(s.stdout, "its server still has it as %s; delete it there with: tunnox client delete %d\n", client, k.id.ClientID)
	}
	return nil
}

// removeFirst removes the files of the first context from the directory that has the
// others too. The identity goes first: without it the rest is nothing.
func removeFirst(dir string) error {
	files := []string{filepath.Join(dir, "client.json"), filepath.Join(dir, contextFile)}
	for _, pattern := range []string{"agent*", ".agent*", "*.json", ".*.json-*"} {
		found, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			return err
		}
		files = append(files, found...)
	}
	for _, file := range files {
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
