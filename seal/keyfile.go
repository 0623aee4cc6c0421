package seal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"

	"github.com/tunnox-net/tunnox/wholefile"
)

// LoadKey reads a key from a file. The error is fs.ErrNotExist when there is none. A file
// that others can read is refused: whoever has the key can be the agent.
func LoadKey(file string) (Key, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return Key{}, fmt.Errorf("read key: %w", err)
	}
	info, err := os.Stat(file)
	if err != nil {
		return Key{}, fmt.Errorf("read key: %w", err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 && runtime.GOOS != "windows" {
		return Key{}, fmt.Errorf("read key: %s holds a secret and is open to others (mode %#o); run chmod 600 %s", file, mode, file)
	}
	key, err := ParseKey(string(text))
	if err != nil {
		return Key{}, fmt.Errorf("read key: %s: %w; restore it, or delete it to have a new key made", file, err)
	}
	return key, nil
}

// LoadOrCreateKey is LoadKey, and makes a key if there is none. After a crash at any
// moment the file holds a whole key or is not there. The caller sees to it that nobody
// else makes one at the same moment.
func LoadOrCreateKey(file string) (key Key, err error) {
	if key, err = LoadKey(file); !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if key, err = NewKey(); err != nil {
		return Key{}, err
	}
	if err := wholefile.Write(file, []byte(key.Secret()+"\n"), 0o600); err != nil {
		return Key{}, fmt.Errorf("save key: %w", err)
	}
	return key, nil
}
