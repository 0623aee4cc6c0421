package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/tunnox-net/tunnox/httpapi"
	"github.com/tunnox-net/tunnox/wholefile"
)

// jwtKeyFile signs access tokens if --jwt-key names no other file; 0600.
const jwtKeyFile = "jwt-key"

// loadSigningKeys reads the keys of access tokens from the files of --jwt-key, or else
// from the data directory, or else makes one there. Control planes of one cluster need
// the same keys: otherwise a token is valid at only one of them.
func loadSigningKeys(dir *dataDir, files string) ([]httpapi.SigningKey, error) {
	if files == "" {
		path := dir.file(jwtKeyFile)
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			key, text, err := httpapi.NewSigningKey()
			if err != nil {
				return nil, err
			}
			return []httpapi.SigningKey{key}, wholefile.Write(path, text, 0o600)
		}
		files = path
	}
	var keys []httpapi.SigningKey
	for path := range strings.SplitSeq(files, ",") {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("read signing key: %w", err)
		}
		info, err := os.Stat(path)
		if err != nil {
			return nil, fmt.Errorf("read signing key: %w", err)
		}
		if mode := info.Mode().Perm(); mode&0o007 != 0 {
			return nil, fmt.Errorf("everybody on this machine can read the signing key %s (mode %#o); run chmod 600 %s", path, mode, path)
		}
		key, err := httpapi.ParseSigningKey(text)
		if err != nil {
			return nil, fmt.Errorf("signing key %s: %w", path, err)
		}
		keys = append(keys, key)
	}
	return keys, nil
}
