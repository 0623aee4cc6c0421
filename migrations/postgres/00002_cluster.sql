-- What the control planes of a cluster share beside the log.

-- +goose Up
CREATE SCHEMA cluster;

-- The authority's key and the join token, sealed with a key derived from the API
-- key, which is in no database: a copy of this one is not the cluster's keys.
CREATE TABLE cluster.secrets (
  name       text        PRIMARY KEY,
  sealed     bytea       NOT NULL,
  changed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Work that one control plane at a time does. The token rises with every change
-- of hands; the clock is the database's.
CREATE TABLE cluster.leases (
  name    text        PRIMARY KEY,
  holder  text        NOT NULL,
  session text        NOT NULL, -- drawn by each process, so that a restarted one is another
  token   bigint      NOT NULL,
  until   timestamptz NOT NULL
) WITH (fillfactor = 10);

-- The control planes that are there: who has not shown itself for a while is not.
CREATE TABLE cluster.control_planes (
  id      text        PRIMARY KEY,
  session text        NOT NULL,
  api     text        NOT NULL,
  state   text        NOT NULL,
  version text        NOT NULL,
  since   timestamptz NOT NULL,
  seen    timestamptz NOT NULL
) WITH (fillfactor = 10);
