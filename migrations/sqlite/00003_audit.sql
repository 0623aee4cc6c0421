-- The tables that make the log provable, and the keys of personal data. The tables are
-- those of the Postgres log.

-- +goose Up

-- Each row extends the Merkle tree over the records (leaf = position - 1) and holds the
-- signed checkpoint of the resulting tree. hashes are those that the records
-- before+1..size add to the tree, 32 bytes each, in the order of
-- golang.org/x/mod/sumdb/tlog; the first is number first_hash.
CREATE TABLE seals (
  size       INTEGER PRIMARY KEY,
  before     INTEGER NOT NULL UNIQUE CHECK (before >= 0 AND before < size),
  first_hash INTEGER NOT NULL UNIQUE,
  hashes     BLOB    NOT NULL,
  note       TEXT    NOT NULL,
  sealed_at  INTEGER NOT NULL -- microseconds since 1970
) STRICT;

-- +goose StatementBegin
CREATE TRIGGER seals_no_update BEFORE UPDATE ON seals BEGIN
  SELECT RAISE(ABORT, 'the log is append-only');
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER seals_no_delete BEFORE DELETE ON seals BEGIN
  SELECT RAISE(ABORT, 'the log is append-only');
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER seals_no_replace BEFORE INSERT ON seals
WHEN NEW.before <> (SELECT coalesce(max(size), 0) FROM seals) BEGIN
  SELECT RAISE(ABORT, 'the tree grows at its end only');
END;
-- +goose StatementEnd

-- The keys that encrypt the personal data in records. Unlike the log, this table can
-- delete: an erased account keeps its row and has no key.
CREATE TABLE data_keys (
  account INTEGER PRIMARY KEY,
  key     BLOB CHECK (length(key) = 32)
) STRICT;
