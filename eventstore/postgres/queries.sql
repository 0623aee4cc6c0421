-- name: AppendBatch :one
SELECT t.base::bigint AS base, t.recorded::timestamptz AS recorded FROM es.append(
  @streams::text[], @before::bigint[], @after::bigint[], @close::boolean[],
  @guards::text[], @guard_versions::bigint[],
  @held_scopes::text[], @held_values::text[], @held_owners::text[],
  @absent_scopes::text[], @absent_keys::text[],
  @drop_scopes::text[], @drop_values::text[], @drop_owners::text[],
  @claim_scopes::text[], @claim_values::text[], @claim_owners::text[],
  @key_scopes::text[], @keys::text[], @key_hashes::bytea[],
  @key_firsts::bigint[], @key_lasts::bigint[], @key_subjects::text[],
  @record_streams::text[], @versions::bigint[], @owners::bigint[], @names::text[],
  @schemas::smallint[], @ids::uuid[], @data::text[], @meta::text[]
) AS t(base, recorded);

-- State gives all that a batch touches in ONE statement, and so in one snapshot:
-- everything in it was true at the same moment.
-- name: State :many
SELECT 's'::text AS kind, s.stream AS name, ''::text AS value, s.version, s.closed,
       ''::bytea AS hash, 0::bigint AS first_position, 0::bigint AS last_position, ''::text AS owner
  FROM es.streams s WHERE s.stream = ANY (@streams::text[])
UNION ALL
SELECT 'c', c.scope, c.value, 0, false, ''::bytea, 0, 0, c.owner
  FROM es.claims c
 WHERE (c.scope, c.value) IN (SELECT unnest(@claim_scopes::text[]), unnest(@claim_values::text[]))
UNION ALL
SELECT 'k', k.scope, k.key, 0, false, k.hash, k.first_position, k.last_position, k.subject
  FROM es.keys k
 WHERE (k.scope, k.key) IN (SELECT unnest(@key_scopes::text[]), unnest(@keys::text[]));

-- name: LockHead :one
SELECT position FROM es.head WHERE id = 1 FOR UPDATE;

-- name: ReadStream :many
SELECT position, stream, version, owner, name, schema, event_id, data, meta, recorded_at
  FROM es.records WHERE stream = @stream AND version > @after ORDER BY version LIMIT @count;

-- name: ReadAll :many
SELECT position, stream, version, owner, name, schema, event_id, data, meta, recorded_at
  FROM es.records WHERE position > @after ORDER BY position LIMIT @count;

-- name: ReadLeaves :many
SELECT position, stream, version, owner, name, schema, event_id, data, meta, leaf_hash, recorded_at
  FROM es.records WHERE position > @after ORDER BY position LIMIT @count;

-- name: Position :one
SELECT position FROM es.head WHERE id = 1;

-- name: Head :one
SELECT h.position, coalesce(r.event_id, '00000000-0000-0000-0000-000000000000')::uuid AS event_id
  FROM es.head h LEFT JOIN es.records r ON r.position = h.position WHERE h.id = 1;

-- name: EventID :one
SELECT event_id FROM es.records WHERE position = @position;

-- name: KeyUse :one
SELECT hash, first_position, last_position, subject FROM es.keys WHERE scope = @scope AND key = @key;

-- name: Claim :one
SELECT owner FROM es.claims WHERE scope = @scope AND value = @value;

-- name: NextUserIDs :many
SELECT nextval('es.user_ids')::bigint FROM generate_series(1, @count::int);

-- name: NextClientIDs :many
SELECT nextval('es.client_ids')::bigint FROM generate_series(1, @count::int);

-- name: NextMappingIDs :many
SELECT nextval('es.mapping_ids')::bigint FROM generate_series(1, @count::int);

-- AppendSeal extends the tree, if nobody else has. It gives no row when the tree is not
-- at before, and a unique index refuses a second writer at the same moment.
-- name: AppendSeal :execrows
INSERT INTO es.seals (size, before, first_hash, hashes, note, sealed_at)
SELECT @size, @before, @first_hash, @hashes, @note, @sealed_at
 WHERE coalesce((SELECT max(s.size) FROM es.seals s), 0) = @before;

-- name: LastSeal :one
SELECT size, before, note, sealed_at FROM es.seals ORDER BY size DESC LIMIT 1;

-- name: Seals :many
SELECT size, before, first_hash, hashes, note, sealed_at FROM es.seals WHERE size > @after ORDER BY size LIMIT @count;

-- TreeHashes gives the hashes in the order of the numbers; a missing hash is empty.
-- name: TreeHashes :many
SELECT coalesce((SELECT substring(s.hashes FROM (32 * (n.number - s.first_hash) + 1)::int FOR 32)
                   FROM es.seals s WHERE s.first_hash <= n.number ORDER BY s.first_hash DESC LIMIT 1), '')::bytea AS hash
  FROM unnest(@numbers::bigint[]) WITH ORDINALITY n(number, ord) ORDER BY n.ord;

-- name: ArchiveStreams :many
SELECT stream, version, closed FROM es.streams WHERE stream > @after ORDER BY stream LIMIT @count;

-- name: ArchiveClaims :many
SELECT scope, value, owner FROM es.claims WHERE (scope, value) > (@scope::text, @value::text) ORDER BY scope, value LIMIT @count;

-- name: ArchiveKeys :many
SELECT scope, key, hash, first_position, last_position, subject, created_at
  FROM es.keys WHERE (scope, key) > (@scope::text, @key::text) ORDER BY scope, key LIMIT @count;

-- name: ArchiveDataKeys :many
SELECT account, key FROM es.data_keys WHERE account > @after ORDER BY account LIMIT @count;

-- name: SetHead :exec
UPDATE es.head SET position = @position WHERE id = 1;

-- Used reports whether anything was ever written.
-- name: Used :one
SELECT EXISTS (SELECT FROM es.records) OR EXISTS (SELECT FROM es.streams) OR EXISTS (SELECT FROM es.claims)
    OR EXISTS (SELECT FROM es.keys) OR EXISTS (SELECT FROM es.seals) OR EXISTS (SELECT FROM es.data_keys) AS used;

-- name: RestoreUserIDs :exec
SELECT setval('es.user_ids', @last::bigint);

-- name: RestoreClientIDs :exec
SELECT setval('es.client_ids', @last::bigint);

-- name: RestoreMappingIDs :exec
SELECT setval('es.mapping_ids', @last::bigint);

-- MakeDataKeys stores the keys of accounts, except accounts that have one or were
-- erased.
-- name: MakeDataKeys :exec
INSERT INTO es.data_keys (account, key)
SELECT unnest(@accounts::bigint[]), unnest(@keys::bytea[])
ON CONFLICT (account) DO NOTHING;

-- name: DataKeys :many
SELECT account, key FROM es.data_keys WHERE account = ANY (@accounts::bigint[]);

-- name: EraseDataKey :exec
INSERT INTO es.data_keys (account, key) VALUES (@account, NULL)
ON CONFLICT (account) DO UPDATE SET key = NULL;
