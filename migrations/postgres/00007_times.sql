-- Recorded times rise from append to append, also when the clock is set back, because a
-- search for a time looks for its place among the positions. es.append is unchanged,
-- except for the line that reads the clock.

-- +goose Up
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION es.append(
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
  -- The head is locked, so that the last record is the last one.
  recorded := greatest(clock_timestamp(),
    (SELECT r.recorded_at + interval '1 microsecond' FROM es.records r WHERE r.position = base));
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
