-- The log of all records, and the tables that appends are checked against.

-- +goose Up
CREATE SCHEMA es;

-- One row. The lock on it orders the commits: every append takes it first and holds it
-- until the commit. So positions are dense, and a reader never sees a later one before
-- an earlier one.
CREATE TABLE es.head (
  id       smallint PRIMARY KEY DEFAULT 1 CHECK (id = 1),
  position bigint   NOT NULL DEFAULT 0
) WITH (fillfactor = 10, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_scale_factor = 0);
INSERT INTO es.head DEFAULT VALUES;

-- The end of every event stream. The expected version of an append is checked here.
CREATE TABLE es.streams (
  stream  text    PRIMARY KEY,
  version bigint  NOT NULL CHECK (version > 0),
  closed  boolean NOT NULL DEFAULT false
) WITH (fillfactor = 85);

-- json and not jsonb: jsonb re-orders keys, and a hash over the stored bytes could not
-- be checked again.
CREATE TABLE es.records (
  position    bigint      PRIMARY KEY,
  stream      text        NOT NULL,
  version     bigint      NOT NULL,
  owner       bigint      NOT NULL,
  name        text        NOT NULL,
  schema      smallint    NOT NULL,
  event_id    uuid        NOT NULL,
  data        json        NOT NULL,
  meta        json        NOT NULL,
  leaf_hash   bytea       NOT NULL CHECK (length(leaf_hash) = 32),
  recorded_at timestamptz NOT NULL
);
-- Unique, so that even a mistake in es.append could not write a version twice.
CREATE UNIQUE INDEX records_stream_version ON es.records (stream, version);

-- Unique names that aggregates hold.
CREATE TABLE es.claims (
  scope    text   NOT NULL,
  value    text   NOT NULL,
  owner    text   NOT NULL,
  PRIMARY KEY (scope, value)
);

-- Used idempotency keys.
CREATE TABLE es.keys (
  scope          text        NOT NULL,
  key            text        NOT NULL,
  hash           bytea       NOT NULL,
  first_position bigint      NOT NULL,
  last_position  bigint      NOT NULL,
  subject        text        NOT NULL,
  created_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (scope, key)
);

CREATE SEQUENCE es.user_ids    START 100000001;
CREATE SEQUENCE es.client_ids  START 600000000;
CREATE SEQUENCE es.mapping_ids START 1001;

-- +goose StatementBegin
CREATE FUNCTION es.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'the log is append-only' USING ERRCODE = 'ES900';
END $$;
-- +goose StatementEnd

CREATE TRIGGER records_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON es.records
  FOR EACH STATEMENT EXECUTE FUNCTION es.refuse_change();

-- append writes a plan that the caller made for an assumed state. If the state is
-- another, it raises ES001 and writes nothing. All appends of a batch are one call, and
-- every step is one statement for the whole batch. So the lock on the head is held for
-- the time of a flush and not for the time of 32 commands.
--
-- It must run alone, in autocommit; otherwise the lock is held over round trips. It
-- needs READ COMMITTED: there, each statement of a VOLATILE function sees everything
-- that was committed before the statement before it got the lock.
--
-- Planner: the arrays are short and the tables long. But a plan that was made while the
-- tables were empty would scan them for as long as it stays cached. So sessions of the
-- store plan once and without scans. Settings of the function itself would do the same
-- and cost a tenth of its time.
-- +goose StatementBegin
CREATE FUNCTION es.append(
  -- event streams that are written: version before and after
  p_streams text[], p_before bigint[], p_after bigint[], p_close boolean[],
  -- event streams, claims and keys that are only checked ('' = nobody's claim)
  p_guards text[], p_guard_versions bigint[],
  p_held_scopes text[], p_held_values text[], p_held_owners text[],
  p_absent_scopes text[], p_absent_keys text[],
  -- claims to drop, claims to make
  p_drop_scopes text[], p_drop_values text[], p_drop_owners text[],
  p_claim_scopes text[], p_claim_values text[], p_claim_owners text[],
  -- keys; positions count from the head
  p_key_scopes text[], p_keys text[], p_key_hashes bytea[],
  p_key_firsts bigint[], p_key_lasts bigint[], p_key_subjects text[],
  -- records, in order
  p_record_streams text[], p_versions bigint[], p_owners bigint[], p_names text[],
  p_schemas smallint[], p_ids uuid[], p_data text[], p_meta text[]
) RETURNS TABLE (base bigint, recorded timestamptz)
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
  n   bigint := cardinality(p_record_streams);
  cnt bigint;
  micros bigint;
BEGIN
  IF n = 0 THEN
    RAISE EXCEPTION 'no records' USING ERRCODE = 'ES000';
  END IF;
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE EXCEPTION 'es.append needs READ COMMITTED' USING ERRCODE = 'ES000';
  END IF;

  UPDATE es.head h SET position = h.position + n WHERE h.id = 1 RETURNING h.position - n INTO STRICT base;
  recorded := clock_timestamp();
  micros := (extract(epoch FROM recorded) * 1000000)::bigint;

  IF cardinality(p_guards) > 0 AND EXISTS (
       SELECT FROM unnest(p_guards, p_guard_versions) g(stream, version)
        WHERE coalesce((SELECT s.version FROM es.streams s WHERE s.stream = g.stream), 0) <> g.version)
  OR cardinality(p_held_scopes) > 0 AND EXISTS (
       SELECT FROM unnest(p_held_scopes, p_held_values, p_held_owners) g(scope, value, owner)
        WHERE coalesce((SELECT c.owner FROM es.claims c WHERE c.scope = g.scope AND c.value = g.value), '') <> g.owner)
  OR cardinality(p_absent_scopes) > 0 AND EXISTS (
       SELECT FROM unnest(p_absent_scopes, p_absent_keys) g(scope, key)
        WHERE EXISTS (SELECT FROM es.keys k WHERE k.scope = g.scope AND k.key = g.key)) THEN
    RAISE EXCEPTION 'state is another' USING ERRCODE = 'ES001';
  END IF;

  -- New streams, claims and keys need no check: the unique indexes are one.
  INSERT INTO es.streams (stream, version, closed)
  SELECT x.stream, x.after, x.close
    FROM unnest(p_streams, p_before, p_after, p_close) x(stream, before, after, close) WHERE x.before = 0;
  GET DIAGNOSTICS cnt = ROW_COUNT;
  IF cnt < cardinality(p_streams) THEN
    UPDATE es.streams s SET version = x.after, closed = x.close
      FROM unnest(p_streams, p_before, p_after, p_close) x(stream, before, after, close)
     WHERE s.stream = x.stream AND s.version = x.before AND x.before > 0 AND NOT s.closed;
    GET DIAGNOSTICS n = ROW_COUNT;
    IF cnt + n <> cardinality(p_streams) THEN
      RAISE EXCEPTION 'state is another' USING ERRCODE = 'ES001';
    END IF;
  END IF;

  IF cardinality(p_drop_scopes) > 0 THEN
    DELETE FROM es.claims c USING unnest(p_drop_scopes, p_drop_values, p_drop_owners) x(scope, value, owner)
     WHERE c.scope = x.scope AND c.value = x.value AND c.owner = x.owner;
    GET DIAGNOSTICS cnt = ROW_COUNT;
    IF cnt <> cardinality(p_drop_scopes) THEN
      RAISE EXCEPTION 'state is another' USING ERRCODE = 'ES001';
    END IF;
  END IF;
  IF cardinality(p_claim_scopes) > 0 THEN
    INSERT INTO es.claims (scope, value, owner) SELECT * FROM unnest(p_claim_scopes, p_claim_values, p_claim_owners);
  END IF;

  -- The content of the leaf is eventstore.LeafContent; a test keeps them equal.
  INSERT INTO es.records (position, stream, version, owner, name, schema, event_id, data, meta, leaf_hash, recorded_at)
  SELECT base + r.ord, r.stream, r.version, r.owner, r.name, r.schema, r.id, r.data::json, r.meta::json,
         sha256('\x00'::bytea || convert_to(concat(E'tunnox-record 1\n', r.stream, E'\n', r.version, E'\n', r.owner, E'\n',
           r.name, E'\n', r.schema, E'\n', r.id, E'\n', micros, E'\n', octet_length(r.data), E'\n', octet_length(r.meta), E'\n',
           r.data, r.meta), 'UTF8')),
         recorded
    FROM unnest(p_record_streams, p_versions, p_owners, p_names, p_schemas, p_ids, p_data, p_meta)
         WITH ORDINALITY AS r(stream, version, owner, name, schema, id, data, meta, ord);

  IF cardinality(p_keys) > 0 THEN
    INSERT INTO es.keys (scope, key, hash, first_position, last_position, subject)
    SELECT x.scope, x.key, x.hash, base + x.first, base + x.last, x.subject
      FROM unnest(p_key_scopes, p_keys, p_key_hashes, p_key_firsts, p_key_lasts, p_key_subjects)
           x(scope, key, hash, first, last, subject);
  END IF;
  RETURN NEXT;
END $$;
-- +goose StatementEnd
