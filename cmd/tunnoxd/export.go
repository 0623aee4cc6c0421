package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tunnox-net/tunnox/audit"
	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/eventstore"
	"github.com/tunnox-net/tunnox/wholefile"
)

const exportLong = `Write the whole log to a file: every record with its exact bytes and leaf hash, the
signed checkpoints, event streams, claims and idempotency keys, all as of one moment.
Servers may run at the same time. "tunnoxd import" fills an empty database from the
file, and "tunnoxd audit verify" proves the file without any server.

The file contains the keys of personal data, so that an import can read the data.
Leave them out (--no-data-keys) of files that you give away or keep for long: a file
without keys cannot undo an erasure, and it proves as much. It names nobody, so a log
that is imported from it carries no connections.`

type exportOptions struct {
	out        string
	noDataKeys bool
}

// exportLog writes the log to a file.
func exportLog(ctx context.Context, cfg *config, o exportOptions, stdout, stderr io.Writer) (err error) {
	if o.out == "" {
		return usageError{errors.New("--out is required: the file to write, or - for standard output")}
	}
	log, err := openToRead(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	keys, err := publicKeys(cfg)
	if err != nil {
		return err
	}
	said := stdout
	bar := newProgress(stderr, "exporting")
	var records int64
	write := func(to io.Writer) error {
		buffered := bufio.NewWriterSize(to, 1<<20)
		file := audit.NewWriter(buffered, time.Now(), keys)
		var head int64
		err := log.Archive(ctx, func(item eventstore.ArchiveItem) error {
			switch i := item.(type) {
			case eventstore.ArchivedHead:
				head = int64(i.Position)
			case eventstore.ArchivedRecord:
				records++
				bar.at(records, head)
			case eventstore.ArchivedClaim:
				if o.noDataKeys && slices.Contains(domain.PersonalClaims, i.Scope) {
					return nil // which nobody could free: the names that records release are not readable
				}
			case eventstore.ArchivedDataKey:
				if o.noDataKeys && i.Key != nil {
					return nil // an erasure is reported all the same
				}
			}
			return file.Put(item)
		})
		if err != nil {
			return err
		}
		if err := file.End(); err != nil {
			return err
		}
		return buffered.Flush()
	}
	if o.out == "-" {
		said = stderr
		err = write(stdout)
	} else {
		err = writeFile(o.out, write)
	}
	took := bar.end()
	if err != nil {
		return fmt.Errorf("export: %w", err)
	}
	_, err = fmt.Fprintf(said, "exported %s to %s\n", pace(records, took), o.out)
	return err
}

// publicKeys gives the public keys in the data directory, if there is one. They are a
// help and no proof: a verifier must get them in another way.
func publicKeys(cfg *config) (keys []string, err error) {
	for _, name := range []string{auditPublicFile, auditTrustedFile} {
		b, err := os.ReadFile(filepath.Join(cfg.Data, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(b)) {
			if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
				keys = append(keys, line)
			}
		}
	}
	return keys, nil
}

// writeFile writes a file that only its owner can read, whole or not at all. Unlike
// replaceFile it never has all of it in memory. For a link it writes the target of the
// link. If the path is not a regular file, such as a device or a pipe, it is written
// to: replaced by a file, /dev/null would be lost for root.
func writeFile(path string, write func(io.Writer) error) (err error) {
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	if there, err := os.Lstat(path); err == nil && !there.Mode().IsRegular() {
		return writeTo(path, write)
	}
	temp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*") // 0600
	if err != nil {
		return err
	}
	err = write(temp)
	if err == nil {
		err = temp.Sync()
	}
	if err = errors.Join(err, temp.Close()); err != nil {
		return errors.Join(err, os.Remove(temp.Name()))
	}
	if err := os.Rename(temp.Name(), path); err != nil {
		return errors.Join(err, os.Remove(temp.Name()))
	}
	return wholefile.SyncDir(filepath.Dir(path))
}

// writeTo writes to the present path, or to the missing target of a link.
func writeTo(path string, write func(io.Writer) error) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return write(f)
}
