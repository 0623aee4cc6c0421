-- The log of all records, and the tables that appends are checked against. The tables
-- are those of the Postgres log. The only writer keeps appends in order.

-- +goose Up
CREATE TABLE head (
  id       INTEGER PRIMARY KEY CHECK (id = 1),
  position INTEGER NOT NULL
) STRICT;
INSERT INTO head (id, position) VALUES (1, 0);

-- The end of every event stream. The expected version of an append is checked here.
CREATE TABLE streams (
  stream  TEXT    PRIMARY KEY,
  version INTEGER NOT NULL CHECK (version > 0),
  closed  INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

CREATE TABLE records (
  position    INTEGER PRIMARY KEY,
  stream      TEXT    NOT NULL,
  version     INTEGER NOT NULL,
  owner       INTEGER NOT NULL,
  name        TEXT    NOT NULL,
  schema      INTEGER NOT NULL,
  event_id    BLOB    NOT NULL,
  data        TEXT    NOT NULL,
  meta        TEXT    NOT NULL,
  leaf_hash   BLOB    NOT NULL CHECK (length(leaf_hash) = 32),
  recorded_at INTEGER NOT NULL -- microseconds since 1970
) STRICT;
CREATE UNIQUE INDEX records_stream_version ON records (stream, version);

-- Unique names that aggregates hold.
CREATE TABLE claims (
  scope TEXT NOT NULL,
  value TEXT NOT NULL,
  owner TEXT NOT NULL,
  PRIMARY KEY (scope, value)
) STRICT, WITHOUT ROWID;

-- Used idempotency keys.
CREATE TABLE keys (
  scope          TEXT    NOT NULL,
  key            TEXT    NOT NULL,
  hash           BLOB    NOT NULL,
  first_position INTEGER NOT NULL,
  last_position  INTEGER NOT NULL,
  subject        TEXT    NOT NULL,
  created_at     INTEGER NOT NULL, -- microseconds since 1970
  PRIMARY KEY (scope, key)
) STRICT, WITHOUT ROWID;

-- SQLite has no TRUNCATE. But INSERT OR REPLACE deletes without firing a delete trigger
-- unless recursive triggers are on; the third trigger refuses it for both unique keys.
-- +goose StatementBegin
CREATE TRIGGER records_no_update BEFORE UPDATE ON records BEGIN
  SELECT RAISE(ABORT, 'the log is append-only');
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER records_no_delete BEFORE DELETE ON records BEGIN
  SELECT RAISE(ABORT, 'the log is append-only');
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER records_no_replace BEFORE INSERT ON records
WHEN NEW.position <= (SELECT coalesce(max(position), 0) FROM records)
  OR EXISTS (SELECT 1 FROM records WHERE stream = NEW.stream AND version = NEW.version) BEGIN
  SELECT RAISE(ABORT, 'the log is append-only');
END;
-- +goose StatementEnd
