-- What the control planes of a cluster share beside the log.

-- +goose Up
CREATE SCHEMA cluster;

-- The data that the control planes of a cluster share beside the log.
-- cluster's keys.
CREATE TABLE cluster.secrets (
  name       text        PRIMARY KEY,
  sealed     bytea       NOT NULL,
  changed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Work that only one control plane does at a time. The token rises whenever another one
-- takes over; the times are those of the database's clock.
CREATE TABLE cluster.leases (
  name    text        PRIMARY KEY,
  holder  text        NOT NULL,
  session text        NOT NULL, -- drawn by each process, so that a restarted process is another one
  token   bigint      NOT NULL,
  until   timestamptz NOT NULL
) WITH (fillfactor = 10);

-- The running control planes. One that has not updated its row for a while is not
-- running.
CREATE TABLE cluster.control_planes (
  id      text        PRIMARY KEY,
  session text        NOT NULL,
  api     text        NOT NULL,
  state   text        NOT NULL,
  version text        NOT NULL,
  since   timestamptz NOT NULL,
  seen    timestamptz NOT NULL
) WITH (fillfactor = 10);
