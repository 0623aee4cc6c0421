package logproof

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/tunnox-net/tunnox/wholefile"
)

// Load reads what Save wrote; a file that is not there is the zero Known.
func Load(file string) (Known, error) {
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return Known{}, nil
	}
	if err != nil {
		return Known{}, fmt.Errorf("read what is known of the server's log: %w", err)
	}
	var k Known
	if err := json.Unmarshal(b, &k); err != nil {
		return Known{}, fmt.Errorf("read what is known of the server's log: %s is damaged (%w); restore it, or delete it to trust the log that the server shows next", file, err)
	}
	if _, err := k.checkpoint(); err != nil {
		return Known{}, fmt.Errorf("%s: %w; restore it, or delete it to trust the log that the server shows next", file, err)
	}
	return k, nil
}

// Save writes the file so that after a crash at any moment it holds either the old or the
// new state.
func (k Known) Save(file string) (err error) {
	b, err := json.MarshalIndent(k, "", "  ")
	if err != nil {
		return fmt.Errorf("save what is known of the server's log: %w", err)
	}
	if err := wholefile.Write(file, append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("save what is known of the server's log: %w", err)
	}
	return nil
}
