package audit

import (
	"fmt"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/tunnox-net/tunnox/logproof"
)

// Checkpoint identifies the first Size records of a log.
type Checkpoint = logproof.Checkpoint

// ErrUnknownKey says that a checkpoint is signed, but not by any of the given keys.
var ErrUnknownKey = logproof.ErrUnknownKey

// sign signs the checkpoint.
func sign(c *Checkpoint, with note.Signer) error {
	c.At = c.At.UTC().Truncate(time.Second)
	signed, err := note.Sign(&note.Note{Text: c.Text()}, with)
	if err != nil {
		return fmt.Errorf("sign a checkpoint: %w", err)
	}
	c.Note, c.Key = string(signed), keyID(with)
	return nil
}

// keyID gives the short form of a key that people compare.
func keyID(k interface {
	Name() string
	KeyHash() uint32
}) string {
	return fmt.Sprintf("%s+%08x", k.Name(), k.KeyHash())
}

// OpenCheckpoint reads a signed checkpoint and checks its signature against the keys, as
// [logproof.OpenCheckpoint] does.
func OpenCheckpoint(signed string, keys []note.Verifier) (Checkpoint, error) {
	return logproof.OpenCheckpoint(signed, keys)
}
