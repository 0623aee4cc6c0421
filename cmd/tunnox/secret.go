package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// secret is a value that the API shows only once.
type secret struct {
	field string // the field of the answer that contains it
	name  string // for people
	again string // the command that makes another one; ID in it is the answer's id
	id    string // the field with that id
	use   string // text after the secret when it is printed
}

// withSecret asks for a secret and gives it to people: in a file, or on the screen. It
// opens the file before it asks, because the secret cannot be shown a second time.
func (r *resource) withSecret(out io.Writer, path string, s secret, ask func() ([]byte, error)) error {
	if path == "" {
		b, err := ask()
		if err != nil {
			return err
		}
		o, err := parseObject(b)
		if err != nil {
			return err
		}
		if err := r.print(out, b); err != nil || r.api.json || o[s.field] == nil {
			return err
		}
		_, err = fmt.Fprintf(out, "\nThe %s is shown only once.%s\n", s.name, strings.NewReplacer("ID", oneLine(o.text(s.id)), "CODE", oneLine(o.text(s.field))).Replace(s.use))
		return err
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("%s file: %w", s.name, err)
	}
	b, err := ask()
	var o object
	if err == nil {
		o, err = parseObject(b)
	}
	if err != nil {
		return errors.Join(err, file.Close(), os.Remove(path))
	}
	text, ok := o[s.field].(string)
	again := strings.ReplaceAll(s.again, "ID", oneLine(o.text(s.id)))
	if !ok { // the same key was used before
		return errors.Join(fmt.Errorf("the %s was shown before and is not shown again; make another one with: %s", s.name, again), file.Close(), os.Remove(path))
	}
	_, err = fmt.Fprintln(file, text)
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		return fmt.Errorf("%s file: %w; make another one with: %s", s.name, err, again)
	}
	delete(o, s.field)
	if b, err = json.Marshal(o); err != nil {
		return err
	}
	return r.print(out, b)
}

// readSecret reads a secret from a file, or from standard input for "-". A secret is
// never an argument: every user of a machine can see arguments.
func (s surroundings) readSecret(path string) (string, error) {
	var b []byte
	var err error
	if path == "-" {
		b, err = io.ReadAll(io.LimitReader(s.stdin, 64<<10))
	} else {
		b, err = os.ReadFile(path)
	}
	if err != nil {
		return "", fmt.Errorf("read secret: %w", err)
	}
	text := strings.TrimRight(string(b), "\r\n")
	if text == "" {
		return "", errors.New("read secret: it is empty")
	}
	return text, nil
}
