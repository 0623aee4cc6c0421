package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"
	"time"

	"golang.org/x/term"
)

// isTerminal reports whether the stream is a terminal. A device such as /dev/null is
// not.
func isTerminal(stream any) bool {
	if s, ok := stream.(*screen); ok {
		stream = s.File
	}
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// atTerminal reports whether there is a person to ask.
func (s surroundings) atTerminal() bool { return isTerminal(s.stdin) && isTerminal(s.stderr) }

// askLine asks the person at the terminal for a line.
func (s surroundings) askLine(ctx context.Context, question string) (string, error) {
	fmt.Fprint(s.stderr, question)
	return answered(ctx, func() (string, error) { return readLine(s.stdin) })
}

// How long and how often the echo of the terminal is checked until it is off.
const (
	echoLook     = 2 * time.Millisecond
	maxEchoLooks = 1000
)

// askHidden is askLine for text that nobody else may read.
func (s surroundings) askHidden(ctx context.Context, question string) (string, error) {
	fd := int(s.stdin.(*os.File).Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return "", fmt.Errorf("ask for a secret: %w", err)
	}
	// The question is printed after the terminal's echo is off. Otherwise people who
	// type at once would see the first letters.
	asked := make(chan struct{})
	go func() {
		defer close(asked)
		for range maxEchoLooks {
			if now, err := term.GetState(fd); err != nil || !reflect.DeepEqual(now, before) {
				break
			}
			time.Sleep(echoLook)
		}
		fmt.Fprint(s.stderr, question)
	}()
	text, err := answered(ctx, func() (string, error) {
		b, err := term.ReadPassword(fd)
		return string(b), err
	})
	<-asked
	// After an interrupt, people want to see what they type next.
	err = errors.Join(err, term.Restore(fd, before))
	fmt.Fprintln(s.stderr)
	return text, err
}

// answered waits for people or for the end of ctx. A read from a terminal cannot be
// cancelled, so it is left running; the process ends soon.
func answered(ctx context.Context, read func() (string, error)) (string, error) {
	type answer struct {
		text string
		err  error
	}
	came := make(chan answer, 1)
	go func() {
		text, err := read()
		came <- answer{text, err}
	}()
	select {
	case a := <-came:
		return a.text, a.err
	case <-ctx.Done():
		return "", errors.New("interrupted")
	}
}

// readLine reads one line and no more: the rest may be the answer to the next question.
func readLine(in io.Reader) (string, error) {
	var line strings.Builder
	one := make([]byte, 1)
	for line.Len() < 64<<10 {
		n, err := in.Read(one)
		if n == 1 && one[0] == '\n' {
			break
		}
		line.Write(one[:n])
		if errors.Is(err, io.EOF) && line.Len() > 0 {
			break
		}
		if err != nil {
			return "", fmt.Errorf("read an answer: %w", err)
		}
	}
	return strings.TrimSuffix(line.String(), "\r"), nil
}
