-- The tables that make the log provable, and the keys of personal data.

-- +goose Up

-- Each row extends the Merkle tree over the records (leaf = position - 1) and holds the
-- signed checkpoint of the resulting tree. hashes are those that the records
-- before+1..size add to the tree, 32 bytes each, in the order of
-- golang.org/x/mod/sumdb/tlog; the first is number first_hash. The leaf hashes among
-- them are a second copy of es.records.leaf_hash. So changing a record means changing
-- two tables, and then the signature does not match.
CREATE TABLE es.seals (
  size       bigint      PRIMARY KEY,
  before     bigint      NOT NULL CHECK (before >= 0 AND before < size),
  first_hash bigint      NOT NULL,
  hashes     bytea       NOT NULL,
  note       text        NOT NULL,
  sealed_at  timestamptz NOT NULL
);
-- Unique, so that of two sealers at the same size only one extends the tree.
CREATE UNIQUE INDEX seals_before ON es.seals (before);
CREATE UNIQUE INDEX seals_first_hash ON es.seals (first_hash);
-- Proofs read single hashes from the middle, and hashes do not compress.
ALTER TABLE es.seals ALTER COLUMN hashes SET STORAGE EXTERNAL;

CREATE TRIGGER seals_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON es.seals
  FOR EACH STATEMENT EXECUTE FUNCTION es.refuse_change();

-- The keys that encrypt the personal data in records. Unlike the log, this table can
-- delete: an erased account keeps its row and has no key. Leave this table out of
-- backups that are kept for long; a backup with keys undoes an erasure.
CREATE TABLE es.data_keys (
  account bigint PRIMARY KEY,
  key     bytea  CHECK (length(key) = 32)
);
