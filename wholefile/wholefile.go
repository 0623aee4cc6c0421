// Package wholefile replaces small files so that nobody ever reads a part of one.
//
// Its duty: after a crash or a power cut at any moment a path has all of its old content
// or all of the new. Its limit: it does not choose between two writers; the last one
// wins.
package wholefile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

// Write makes or replaces a file. Its mode is exactly mode, whatever the umask. The folder
// must be there. After an error the path is as it was, or has the new content that a power
// cut could still undo.
func Write(path string, content []byte, mode fs.FileMode) (err error) {
	dir := filepath.Dir(path)
	next, err := os.CreateTemp(dir, "."+filepath.Base(path)+"-*") // 0600 until the mode is set
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	_, err = next.Write(content)
	if err = errors.Join(err, next.Chmod(mode), next.Sync(), next.Close()); err == nil {
		err = os.Rename(next.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", path, err), os.Remove(next.Name()))
	}
	return SyncDir(dir)
}

// SyncDir makes what was renamed in a folder survive a power cut. Windows has no such call
// for a folder, and needs none for a rename.
func SyncDir(path string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	dir, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("sync %s: %w", path, err)
	}
	err = dir.Sync()
	if errors.Is(err, errors.ErrUnsupported) { // some file systems
		err = nil
	}
	if err = errors.Join(err, dir.Close()); err != nil {
		return fmt.Errorf("sync %s: %w", path, err)
	}
	return nil
}
