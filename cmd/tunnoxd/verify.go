package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"github.com/tunnox-net/tunnox/audit"
	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/eventstore"
)

const verifyLong = `Prove that the log matches its signed checkpoints, or name the first position that
differs. With --export only the file is needed; without it the log of --postgres, or
the one in --data, is read.

--checkpoint is an answer of GET /api/v1/audit/checkpoint. Keep some answers at a place
where the people who run the server cannot change them, and give each with its own
--checkpoint. Signatures are checked with --key: a verifier key, or a file with one key
in each line. Without --key the key comes from the checkpoint file, from --data, or from
the export; the key is printed, so that you can compare it.
Status 0: proven. 1: not proven; the first wrong position is named. 2: usage.`

type verifyOptions struct {
	export      string
	checkpoints []string
	key         string
	json        bool
}

// errUnproven ends the program with status 1; the finding has been printed.
var errUnproven = errors.New("the log does not match its signed checkpoints")

// verifyLog compares a log with its checkpoints.
func verifyLog(ctx context.Context, cfg *config, o verifyOptions, stdout, stderr io.Writer) (err error) {
	if o.export == "" && cfg.Postgres == "" {
		if _, err := existing(cfg.Data); err != nil {
			return err
		}
	}
	keys, from, err := o.keys(cfg)
	if err != nil {
		return usageError{err}
	}
	if kept := filepath.Join(cfg.Data, auditCheckpointFile); o.export == "" && len(keys) > 0 {
		if _, err := os.Stat(kept); err == nil {
			o.checkpoints = append(o.checkpoints, kept) // the server's own checkpoint, from outside the database
		}
	}
	anchors, err := o.anchors(keys)
	if err != nil {
		return err
	}
	if len(anchors) == 0 && len(keys) == 0 {
		return usageError{errors.New("--checkpoint or --key is needed: without them there is nothing to compare the log with")}
	}
	verifier := audit.NewVerifier(keys, anchors...)
	bar := newProgress(stderr, "verifying")
	var records, head int64
	take := func(item eventstore.ArchiveItem) error {
		switch i := item.(type) {
		case eventstore.ArchivedHead:
			head = int64(i.Position)
		case eventstore.ArchivedRecord:
			records++
			bar.at(records, head)
		}
		return verifier.Add(item)
	}
	if o.export != "" {
		err = readExport(o.export, take)
	} else {
		err = readStore(ctx, cfg, take)
	}
	took := bar.end()
	report := verifier.End()
	fault, damaged := errors.AsType[*audit.FileError](err)
	_, found := errors.AsType[*audit.Finding](err)
	switch {
	case err != nil && !damaged && !found:
		return err
	case report.Finding != nil:
	case damaged:
		report.Finding = doubt(report, "the file is damaged: "+fault.Error())
	case report.Checkpoints == 0 && records > 0:
		report.Finding = doubt(report, "there is no checkpoint to compare with")
	}
	if err := o.print(stdout, report, from, pace(records, took)); err != nil {
		return err
	}
	if report.Finding != nil {
		return fmt.Errorf("%w: %w", errUnproven, report.Finding)
	}
	return nil
}

// doubt gives a finding about all records that are not proven.
func doubt(r audit.Report, why string) *audit.Finding {
	return &audit.Finding{Kind: audit.Doubtful, Position: domain.Position(r.Proven + 1),
		Through: domain.Position(max(r.Records, r.Proven+1)), Detail: why}
}

func (o verifyOptions) print(out io.Writer, r audit.Report, keyFrom, pace string) error {
	if o.json {
		return json.NewEncoder(out).Encode(struct {
			Proven bool `json:"is_proven"`
			audit.Report
		}{r.Finding == nil, r})
	}
	var b strings.Builder
	if r.Log != "" {
		fmt.Fprintf(&b, "log %s, %d checkpoints compared\n", r.Log, r.Checkpoints)
	}
	if r.Key != "" {
		fmt.Fprintf(&b, "signed by %s (%s)\n", r.Key, keyFrom)
	} else if r.Checkpoints > 0 {
		fmt.Fprintf(&b, "no signature was checked, because there is no --key\n")
	}
	switch {
	case r.Finding != nil:
		fmt.Fprintf(&b, "NOT PROVEN: %v\n", r.Finding)
		if r.Proven > 0 {
			fmt.Fprintf(&b, "records 1 to %d are proven\n", r.Proven)
		}
	case r.Records == 0:
		fmt.Fprintf(&b, "the log is empty\n")
	default:
		fmt.Fprintf(&b, "PROVEN: records 1 to %d are the signed ones; %s\n", r.Proven, pace)
		if r.Records > r.Proven {
			fmt.Fprintf(&b, "records %d to %d came after the last checkpoint; they match their own hashes\n", r.Proven+1, r.Records)
		}
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// savedCheckpoint is the API's answer, or only the note.
type savedCheckpoint struct {
	Checkpoint  string `json:"checkpoint"`
	VerifierKey string `json:"verifier_key"`
}

func readCheckpoint(path string) (savedCheckpoint, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return savedCheckpoint{}, fmt.Errorf("--checkpoint: %w", err)
	}
	var c savedCheckpoint
	if trimmed := strings.TrimSpace(string(b)); strings.HasPrefix(trimmed, "{") {
		if err := json.Unmarshal(b, &c); err != nil || c.Checkpoint == "" {
			return c, fmt.Errorf("--checkpoint: %s is not an answer of GET /api/v1/audit/checkpoint", path)
		}
		return c, nil
	}
	return savedCheckpoint{Checkpoint: strings.TrimRight(string(b), "\n") + "\n"}, nil
}

// anchors gives the checkpoints of the command line, after a check of their signatures.
func (o verifyOptions) anchors(keys []note.Verifier) ([]audit.Checkpoint, error) {
	var anchors []audit.Checkpoint
	for _, path := range o.checkpoints {
		saved, err := readCheckpoint(path)
		if err != nil {
			return nil, usageError{err}
		}
		c, err := audit.OpenCheckpoint(saved.Checkpoint, keys)
		if err != nil && (len(keys) > 0 || !errors.Is(err, audit.ErrUnknownKey)) {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		anchors = append(anchors, c)
	}
	return anchors, nil
}

// keys gives the keys for the signatures, and where they come from.
func (o verifyOptions) keys(cfg *config) (keys []note.Verifier, from string, err error) {
	if o.key != "" {
		if b, err := os.ReadFile(o.key); err == nil {
			keys, err := audit.ParseVerifiers(string(b))
			return keys, "key from " + o.key, err
		}
		keys, err := audit.ParseVerifiers(o.key)
		return keys, "the given key", err
	}
	for _, path := range o.checkpoints {
		saved, err := readCheckpoint(path)
		if err != nil {
			return nil, "", err
		}
		more, err := audit.ParseVerifiers(saved.VerifierKey)
		if err != nil {
			return nil, "", err
		}
		keys, from = append(keys, more...), "key from "+path
	}
	if len(keys) > 0 {
		return keys, from, nil
	}
	if o.export == "" {
		for _, name := range []string{auditPublicFile, auditTrustedFile} {
			more, err := readVerifiers(filepath.Join(cfg.Data, name))
			if err != nil {
				return nil, "", err
			}
			keys = append(keys, more...)
		}
		return keys, "key from " + cfg.Data, nil
	}
	file, err := os.Open(o.export)
	if err != nil {
		return nil, "", fmt.Errorf("--export: %w", err)
	}
	defer file.Close()
	lines, err := audit.VerifierKeys(file)
	if err != nil {
		return nil, "", nil // the fault of the file is found when it is read
	}
	keys, err = audit.ParseVerifiers(strings.Join(lines, "\n"))
	return keys, "key from the export itself: compare it with a key that you know", err
}

func readExport(path string, take func(eventstore.ArchiveItem) error) error {
	file, err := os.Open(path)
	if err != nil {
		return usageError{fmt.Errorf("--export: %w", err)}
	}
	defer file.Close()
	return audit.Read(file, take)
}

func readStore(ctx context.Context, cfg *config, take func(eventstore.ArchiveItem) error) (err error) {
	log, err := openToRead(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	return log.Archive(ctx, take)
}
