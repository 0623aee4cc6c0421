-- name: Stream :one
SELECT version, closed FROM streams WHERE stream = ?1;

-- name: Claim :one
SELECT owner FROM claims WHERE scope = ?1 AND value = ?2;

-- name: KeyUse :one
SELECT hash, first_position, last_position, subject FROM keys WHERE scope = ?1 AND key = ?2;

-- name: InsertStream :exec
INSERT INTO streams (stream, version, closed) VALUES (?1, ?2, ?3);

-- name: UpdateStream :exec
UPDATE streams SET version = ?2, closed = ?3 WHERE stream = ?1;

-- name: DeleteClaim :exec
DELETE FROM claims WHERE scope = ?1 AND value = ?2;

-- name: InsertClaim :exec
INSERT INTO claims (scope, value, owner) VALUES (?1, ?2, ?3);

-- name: InsertKey :exec
INSERT INTO keys (scope, key, hash, first_position, last_position, subject, created_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7);

-- name: InsertRecord :exec
INSERT INTO records (position, stream, version, owner, name, schema, event_id, data, meta, leaf_hash, recorded_at)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11);

-- name: Position :one
SELECT position FROM head WHERE id = 1;

-- name: SetPosition :exec
UPDATE head SET position = ?1 WHERE id = 1;

-- name: ReadStream :many
SELECT position, stream, version, owner, name, schema, event_id, data, meta, recorded_at
  FROM records WHERE stream = ?1 AND version > ?2 ORDER BY version LIMIT ?3;

-- name: ReadAll :many
SELECT position, stream, version, owner, name, schema, event_id, data, meta, recorded_at
  FROM records WHERE position > ?1 ORDER BY position LIMIT ?2;

-- name: ReadLeaves :many
SELECT position, stream, version, owner, name, schema, event_id, data, meta, leaf_hash, recorded_at
  FROM records WHERE position > ?1 ORDER BY position LIMIT ?2;

-- Head reads both in one statement: two statements would see two moments.
-- name: Head :one
SELECT h.position, r.event_id FROM head h LEFT JOIN records r ON r.position = h.position WHERE h.id = 1;

-- name: EventID :one
SELECT event_id FROM records WHERE position = ?1;

-- LastNumber gives the highest number of a category's event streams in a range.
-- "client-600000000" sorts by its number only while all numbers have one length, so the
-- numbers themselves are compared.
-- name: LastNumber :one
SELECT CAST(coalesce(max(CAST(substr(stream, length(sqlc.arg(prefix)) + 1) AS INTEGER)), 0) AS INTEGER) AS number
  FROM streams WHERE stream >= sqlc.arg(prefix) AND stream < sqlc.arg(prefix) || ':';

-- name: InsertSeal :exec
INSERT INTO seals (size, before, first_hash, hashes, note, sealed_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6);

-- name: LastSeal :one
SELECT size, before, note, sealed_at FROM seals ORDER BY size DESC LIMIT 1;

-- name: Seals :many
SELECT size, before, first_hash, hashes, note, sealed_at FROM seals WHERE size > ?1 ORDER BY size LIMIT ?2;

-- name: TreeHash :one
SELECT CAST(substr(s.hashes, 32 * (?1 - s.first_hash) + 1, 32) AS BLOB) AS hash
  FROM seals s WHERE s.first_hash <= ?1 ORDER BY s.first_hash DESC LIMIT 1;

-- name: ArchiveStreams :many
SELECT stream, version, closed FROM streams WHERE stream > ?1 ORDER BY stream LIMIT ?2;

-- name: ArchiveClaims :many
SELECT scope, value, owner FROM claims WHERE (scope, value) > (?1, ?2) ORDER BY scope, value LIMIT ?3;

-- name: ArchiveKeys :many
SELECT scope, key, hash, first_position, last_position, subject, created_at
  FROM keys WHERE (scope, key) > (?1, ?2) ORDER BY scope, key LIMIT ?3;

-- name: ArchiveDataKeys :many
SELECT account, key FROM data_keys WHERE account > ?1 ORDER BY account LIMIT ?2;

-- Used reports whether anything was ever written.
-- name: Used :one
SELECT EXISTS (SELECT 1 FROM records) OR EXISTS (SELECT 1 FROM streams) OR EXISTS (SELECT 1 FROM claims)
    OR EXISTS (SELECT 1 FROM keys) OR EXISTS (SELECT 1 FROM seals) OR EXISTS (SELECT 1 FROM data_keys) AS used;

-- MakeDataKey stores the key of an account, unless it has one or was erased.
-- name: MakeDataKey :exec
INSERT INTO data_keys (account, key) VALUES (?1, ?2) ON CONFLICT (account) DO NOTHING;

-- name: DataKey :one
SELECT key FROM data_keys WHERE account = ?1;

-- name: EraseDataKey :exec
INSERT INTO data_keys (account, key) VALUES (?1, NULL) ON CONFLICT (account) DO UPDATE SET key = NULL;
