package audit

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Checkpoint says what the first Size records of a log are.
type Checkpoint struct {
	Origin string // the name of the log
	Size   int64
	Root   tlog.Hash
	At     time.Time // when it was signed, in seconds
	Note   string    // the text with its signatures, as it was signed
	Key    string    // name+hash of the key whose signature was checked, "" = none
}

// ErrUnknownKey says that a checkpoint is signed, but by no key that was given.
var ErrUnknownKey = errors.New("audit: the checkpoint is not signed by a key that is known")

const signedAt = "signed "

func (c Checkpoint) text() string {
	return c.Origin + "\n" + strconv.FormatInt(c.Size, 10) + "\n" + c.Root.String() + "\n" + signedAt + c.At.UTC().Format(time.RFC3339) + "\n"
}

// sign signs the checkpoint.
func (c *Checkpoint) sign(with note.Signer) error {
	c.At = c.At.UTC().Truncate(time.Second)
	signed, err := note.Sign(&note.Note{Text: c.text()}, with)
	if err != nil {
		return fmt.Errorf("sign a checkpoint: %w", err)
	}
	c.Note, c.Key = string(signed), keyID(with)
	return nil
}

// keyID names a key as people compare it.
func keyID(k interface {
	Name() string
	KeyHash() uint32
}) string {
	return fmt.Sprintf("%s+%08x", k.Name(), k.KeyHash())
}

// OpenCheckpoint reads a signed checkpoint and checks its signature against the
// keys. It is [ErrUnknownKey] when none of them signed it; the checkpoint is
// then what somebody claims.
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
		return c, errors.New("audit: a checkpoint has a name, a size and a hash, a line each")
	}
	c.Origin = lines[0]
	if c.Size, err = strconv.ParseInt(lines[1], 10, 64); err != nil || c.Size < 0 || strconv.FormatInt(c.Size, 10) != lines[1] {
		return c, fmt.Errorf("audit: the checkpoint's size is %.40q", lines[1])
	}
	if c.Root, err = tlog.ParseHash(lines[2]); err != nil {
		return c, fmt.Errorf("audit: the checkpoint's hash: %w", err)
	}
	for _, line := range lines[3:] { // others are extensions
		if at, ok := strings.CutPrefix(line, signedAt); ok {
			if c.At, err = time.Parse(time.RFC3339, at); err != nil {
				return c, fmt.Errorf("audit: the checkpoint's time: %w", err)
			}
		}
	}
	return c, nil
}
