package logproof

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Checkpoint identifies the first Size records of a log.
type Checkpoint struct {
	Origin string // the name of the log
	Size   int64
	Root   tlog.Hash
	At     time.Time // the time of signing, in seconds
	Note   string    // the text with its signatures, exactly as signed
	Key    string    // name+hash of the key whose signature was checked, "" = none
}

// ErrUnknownKey says that a checkpoint is signed, but not by any of the given keys.
var ErrUnknownKey = errors.New("audit: the checkpoint is not signed by a known key")

const signedAt = "signed "

// Text gives what is signed.
func (c Checkpoint) Text() string {
	return c.Origin + "\n" + strconv.FormatInt(c.Size, 10) + "\n" + c.Root.String() + "\n" + signedAt + c.At.UTC().Format(time.RFC3339) + "\n"
}

// OpenCheckpoint reads a signed checkpoint and checks its signature against the keys.
// It gives [ErrUnknownKey] when none of them signed the checkpoint; then the returned
// checkpoint is not proved.
func OpenCheckpoint(signed string, keys []note.Verifier) (Checkpoint, error) {
	n, err := note.Open([]byte(signed), note.VerifierList(keys...))
	if unverified, ok := errors.AsType[*note.UnverifiedNoteError](err); ok {
		c, parseErr := parseCheckpoint(unverified.Note.Text)
		if parseErr != nil {
			return c, parseErr
		}
		c.Note = signed
		return c, ErrUnknownKey
	}
	if err != nil {
		return Checkpoint{}, fmt.Errorf("audit: the checkpoint's signature: %w", err)
	}
	c, err := parseCheckpoint(n.Text)
	c.Note, c.Key = signed, fmt.Sprintf("%s+%08x", n.Sigs[0].Name, n.Sigs[0].Hash)
	return c, err
}

func parseCheckpoint(text string) (c Checkpoint, err error) {
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if len(lines) < 3 || lines[0] == "" {
		return c, errors.New("audit: a checkpoint needs a name, a size and a hash, each on a line of its own")
	}
	c.Origin = lines[0]
	if c.Size, err = strconv.ParseInt(lines[1], 10, 64); err != nil || c.Size < 0 || strconv.FormatInt(c.Size, 10) != lines[1] {
		return c, fmt.Errorf("audit: the checkpoint's size %.40q is not a number of records", lines[1])
	}
	if c.Root, err = tlog.ParseHash(lines[2]); err != nil {
		return c, fmt.Errorf("audit: the checkpoint's hash: %w", err)
	}
	for _, line := range lines[3:] { // other lines are extensions
		if at, ok := strings.CutPrefix(line, signedAt); ok {
			if c.At, err = time.Parse(time.RFC3339, at); err != nil {
				return c, fmt.Errorf("audit: the checkpoint's time: %w", err)
			}
		}
	}
	return c, nil
}
