package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/tunnox-net/tunnox/audit"
	"github.com/tunnox-net/tunnox/eventstore"
	"github.com/tunnox-net/tunnox/eventstore/postgres"
	"github.com/tunnox-net/tunnox/eventstore/sqlite"
)

const importLong = `Fill an empty database from a file of "tunnoxd export": the database of --postgres,
or without it the one in --data. Bytes, positions, proofs, claims, closed event
streams and idempotency keys are those of the original, and new ids follow the ids in
use. The whole file is checked on the way. If it is wrong, the database stays empty.

To continue with the same servers and agents, keep the data directory: it has the API
key, the identity that agents know, and audit-key, which signs checkpoints.`

// importLog fills an empty store from a file.
func importLog(ctx context.Context, cfg *config, in string, stdout, stderr io.Writer) (err error) {
	if in == "" {
		return usageError{errors.New("--in is required: the file that tunnoxd export wrote")}
	}
	file, err := os.Open(in)
	if err != nil {
		return usageError{fmt.Errorf("--in: %w", err)}
	}
	defer file.Close()
	log, end, err := openToFill(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end()) }()

	bar := newProgress(stderr, "importing")
	var records, head int64
	checked := audit.NewVerifier(nil)
	err = log.Restore(ctx, func(put func(eventstore.ArchiveItem) error) error {
		err := audit.Read(file, func(item eventstore.ArchiveItem) error {
			switch i := item.(type) {
			case eventstore.ArchivedHead:
				head = int64(i.Position)
			case eventstore.ArchivedRecord:
				records++
				bar.at(records, head)
			}
			if err := checked.Add(item); err != nil {
				return err
			}
			return put(item)
		})
		if err != nil {
			return err
		}
		if report := checked.End(); report.Finding != nil {
			return report.Finding
		}
		return nil
	})
	took := bar.end()
	if err != nil {
		return fmt.Errorf("import %s: %w; nothing of it was kept", in, err)
	}
	_, err = fmt.Fprintf(stdout, "imported %s\n", pace(records, took))
	return err
}

// openToFill opens the store to fill, and makes its schema.
func openToFill(ctx context.Context, cfg *config) (log provable, end func() error, err error) {
	if cfg.Postgres != "" {
		if err := makeFirstSchema(ctx, cfg.Postgres); err != nil {
			return nil, nil, err
		}
		log, err := explainSchema(postgres.Open(ctx, cfg.Postgres, postgres.Options{MaxConns: 4}))
		if err != nil {
			return nil, nil, err
		}
		return log, log.Close, nil
	}
	dir, err := openDataDir(cfg.Data)
	if err != nil {
		return nil, nil, err
	}
	path := dir.file(logFile)
	if _, err = sqlite.Migrate(ctx, path); err == nil {
		log, err = explainSchema(sqlite.Open(ctx, path))
	}
	if err != nil {
		return nil, nil, errors.Join(err, dir.close())
	}
	return log, func() error { return errors.Join(log.Close(), dir.close()) }, nil
}
